//! What holds an exchange to the caller's credential: a stream ends when that does, be it an upload or an answer.
//!
//! Most are over before it matters. Their whole price is a moment noted in the body, whose own timer wakes the stream once
//! it has lasted; only then is the credential watched over.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;

use super::Exchange;
use crate::snapshot::{Keepsake, Lapse, Vigil};
use crate::types::body::Body;
use crate::types::expiry::LastWords;
use crate::types::{Reason, Rejection, Response, clock};

/// The hold of a credential on one answer.
pub(super) struct Leash {
    /// Credentials that had ended before this one was judged.
    since: u64,
    /// For asking about the credential again, where it does not say when it ends.
    keepsake: Option<Keepsake>,
    hold: Hold,
    words: Option<Box<dyn LastWords>>,
}

#[derive(Debug)]
enum Hold {
    /// So many pieces went by, and whether one was waited for.
    Loose { pieces: u32, waited: bool },
    /// The answer lasts.
    Tight(Box<Vigil>),
    /// Nothing is known of the credential, or it has ended.
    None,
}

const LOOSE: Hold = Hold::Loose {
    pieces: 0,
    waited: false,
};

/// What takes longer is watched over.
const LASTS: Duration = Duration::from_secs(1);

/// Between two looks at the clock, where no piece has to be waited for.
const PIECES: u32 = 32;

impl Leash {
    pub(super) fn new(since: u64, keepsake: Option<Keepsake>) -> Self {
        Self {
            since,
            keepsake,
            hold: LOOSE,
            words: None,
        }
    }

    /// What the answer says if it is ended.
    pub(super) fn learn(&mut self, words: Option<Box<dyn LastWords>>) {
        self.words = words;
    }

    /// The answer begins.
    pub(super) fn follow(&mut self, started: Instant, response: &mut Response) {
        response.body_mut().wake_at(started + LASTS);
    }

    /// A piece of the answer goes by.
    pub(super) fn hear(&mut self, frame: &Frame<Bytes>) {
        if let Hold::Loose { pieces, .. } = &mut self.hold {
            *pieces += 1;
        }
        if let Some(words) = &mut self.words {
            words.hear(frame);
        }
    }
}

impl fmt::Debug for Leash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leash")
            .field("since", &self.since)
            .field("hold", &self.hold)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// The request body begins, for whoever reads it here.
    pub fn reads(&self, body: &mut Body) {
        if self.leash.is_some() {
            body.wake_at(self.started + LASTS);
        }
    }

    /// What `work` comes to, if it is done before the credential ends. That matters only while the request body is still on
    /// its way: one that has arrived whole was judged when it came, and is owed its answer.
    ///
    /// Whoever waits for the body looks about now and then, so that this has no timer of its own until the upload has
    /// lasted.
    ///
    /// # Errors
    /// `TokenExpired`, `TokenRevoked`.
    pub async fn while_credential_lasts<F: Future>(
        &mut self,
        mut work: Pin<&mut F>,
    ) -> Result<F::Output, Rejection> {
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self
                .poll_upload(cx)
                .map(|lapse| Err(self.refuse_upload(lapse))),
        })
        .await
    }

    /// Ready when the credential has ended before the request body.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Lapse> {
        let Some(leash) = &self.leash else {
            return Poll::Pending;
        };
        let under_way = self.fate.as_ref().is_some_and(|fate| !fate.ended());
        match leash.hold {
            Hold::Tight(_) if under_way => self.poll_lapse(cx),
            Hold::Tight(_) => {
                self.loosen(cx);
                Poll::Pending
            }
            Hold::Loose { .. } if under_way => self.poll_wait(cx),
            Hold::Loose { .. } | Hold::None => Poll::Pending,
        }
    }

    /// The upload is over: from here on it is the answer that must last to be watched over. A credential that is good still
    /// counts as judged now.
    fn loosen(&mut self, cx: &mut Context<'_>) {
        let told = self.desk.vigils.told();
        let Some(leash) = &mut self.leash else {
            return;
        };
        if let Hold::Tight(vigil) = &mut leash.hold
            && vigil.poll(cx).is_pending()
        {
            leash.since = told;
        }
        leash.hold = LOOSE;
    }

    fn refuse_upload(&mut self, lapse: Lapse) -> Rejection {
        self.leash = None;
        self.note_lapse(lapse);
        self.charges.release(); // the backend has not had its say
        Rejection::because(reason(lapse), "the upload was under way")
    }

    /// Ready when the credential has ended, of an answer that lasts.
    pub(super) fn poll_lapse(&mut self, cx: &mut Context<'_>) -> Poll<Lapse> {
        let Some(leash) = &mut self.leash else {
            return Poll::Pending;
        };
        match &mut leash.hold {
            Hold::None => Poll::Pending,
            Hold::Tight(vigil) => vigil.poll(cx),
            Hold::Loose { pieces, .. } if *pieces < PIECES => Poll::Pending,
            Hold::Loose { pieces, .. } => {
                *pieces = 0;
                if self.lasts() {
                    self.tighten();
                    return self.poll_lapse(cx);
                }
                Poll::Pending
            }
        }
    }

    /// The same when a piece has to be waited for. The first wait is no reason to ask whether the answer lasts.
    pub(super) fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Lapse> {
        let Some(leash) = &mut self.leash else {
            return Poll::Pending;
        };
        let Hold::Loose { waited, .. } = &mut leash.hold else {
            return Poll::Pending;
        };
        if std::mem::replace(waited, true) && self.lasts() {
            self.tighten();
            return self.poll_lapse(cx);
        }
        Poll::Pending
    }

    fn lasts(&self) -> bool {
        clock::now().saturating_duration_since(self.started) >= LASTS
    }

    fn tighten(&mut self) {
        let vigil = self.vigil();
        if let Some(leash) = &mut self.leash {
            leash.hold = vigil.map_or(Hold::None, |vigil| Hold::Tight(Box::new(vigil)));
        }
    }

    /// Watches over the credential from now on.
    pub(super) fn vigil(&mut self) -> Option<Vigil> {
        let (leash, principal) = (self.leash.as_mut()?, self.principal.as_ref()?);
        leash.keepsake = leash.keepsake.take().map(Keepsake::settled);
        let vigil = self.desk.vigils.keep(principal, leash.since)?;
        let (Some(keepsake), Some(policy)) = (leash.keepsake.clone(), self.policy.clone()) else {
            return Some(vigil);
        };
        let (pools, principal) = (self.desk.pools.clone(), principal.clone());
        Some(vigil.asking(Box::pin(async move {
            let every = policy.stream_recheck;
            let forsaken = policy.authn.forsaken(&pools, keepsake, &principal, every);
            forsaken.await;
        })))
    }

    /// Notes that the credential has ended; the last frame of the answer, if it can be ended in words here.
    pub(super) fn lapse(&mut self, lapse: Lapse) -> Option<Frame<Bytes>> {
        let leash = self.leash.take()?;
        self.note_lapse(lapse);
        let reason = reason(lapse);
        self.cut_off(reason);
        leash.words?.speak(reason)
    }

    fn note_lapse(&mut self, lapse: Lapse) {
        self.metrics.lapsed(lapse.as_str());
        self.ended = Some(lapse.as_str());
    }
}

fn reason(lapse: Lapse) -> Reason {
    match lapse {
        Lapse::Expired => Reason::TokenExpired,
        Lapse::Revoked => Reason::TokenRevoked,
    }
}

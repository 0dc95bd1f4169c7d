//! What holds an answer to the caller's credential: a stream ends when that does.
//!
//! Most answers are over before it matters. Their whole price is a moment noted in the body, whose own timer wakes the
//! stream once it has lasted; only then is the credential watched over.

use std::fmt;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;

use super::Exchange;
use crate::snapshot::{Lapse, Vigil};
use crate::types::expiry::LastWords;
use crate::types::{Reason, Response, clock};

/// The hold of a credential on one answer.
pub(super) struct Leash {
    /// Credentials that had ended before this one was judged.
    since: u64,
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

/// An answer that takes longer is watched over.
const LASTS: Duration = Duration::from_secs(1);

/// Between two looks at the clock, where no piece has to be waited for.
const PIECES: u32 = 32;

impl Leash {
    pub(super) fn new(since: u64) -> Self {
        Self {
            since,
            hold: Hold::Loose {
                pieces: 0,
                waited: false,
            },
            words: None,
        }
    }

    pub(super) fn into_since(self) -> u64 {
        self.since
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
        let (Some(leash), Some(principal)) = (&mut self.leash, &self.principal) else {
            return;
        };
        let vigil = self.desk.vigils.keep(&principal.facts, leash.since);
        leash.hold = vigil.map_or(Hold::None, |vigil| Hold::Tight(Box::new(vigil)));
    }

    /// Notes that the credential has ended; the last frame of the answer, if it can be ended in words here.
    pub(super) fn lapse(&mut self, lapse: Lapse) -> Option<Frame<Bytes>> {
        let leash = self.leash.take()?;
        self.metrics.lapsed(lapse.as_str());
        self.ended = Some(lapse.as_str());
        let reason = match lapse {
            Lapse::Expired => Reason::TokenExpired,
            Lapse::Revoked => Reason::TokenRevoked,
        };
        self.cut_off(reason);
        leash.words?.speak(reason)
    }
}

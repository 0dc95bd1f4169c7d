//! Users and their sessions, in memory and bounded. Time is passed in; passwords are kept as PBKDF2 digests.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::{digest, pbkdf2};
use parking_lot::Mutex;

use super::keys::{random_bytes, random_id};

/// The user that every demo backend knows.
pub const SEEDED_EMAIL: &str = "ada@example.com";

/// That user's password. Public, and worth nothing.
pub const SEEDED_PASSWORD: &str = "correct horse battery staple";

/// Who may log in, and who is logged in.
#[derive(Debug)]
pub(super) struct Accounts {
    book: Mutex<Book>,
    /// Checked when the user is unknown, so that the answer takes as long.
    decoy: PasswordDigest,
}

#[derive(Debug, Default)]
struct Book {
    users: HashMap<String, Arc<User>>,
    /// By the digest of the access token.
    sessions: HashMap<Digest, Session>,
    /// From the digest of a refresh token to that of the access token.
    refreshes: HashMap<Digest, Digest>,
    challenges: HashMap<String, Challenge>,
}

/// Somebody who registered.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: String,
    pub(super) organization_id: String,
    pub(super) organization_name: String,
    pub(super) email: String,
    pub(super) second_factor: bool,
    password: PasswordDigest,
}

/// One login and what was renewed from it.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) user: Arc<User>,
    pub(super) family: String,
    pub(super) mfa_verified_at: Option<SystemTime>,
    refresh: Digest,
    access_until: SystemTime,
    refresh_until: SystemTime,
}

/// The first factor was right, the second is awaited.
#[derive(Debug)]
struct Challenge {
    user: Arc<User>,
    until: SystemTime,
    bad_codes: u32,
}

/// What a new session hands out beside the access token.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) refresh: String,
    pub(super) csrf: String,
}

/// Why an account operation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The address has an account.
    EmailTaken,
    /// Wrong user, password or code, or a token that is not, or no longer, good.
    Invalid,
    /// Too many wrong codes.
    TooManyCodes,
    /// No room for another user, session or challenge.
    Full,
}

type Digest = [u8; 32];

impl Accounts {
    /// Accounts with the one seeded user.
    pub(super) fn seeded() -> Self {
        let accounts = Self {
            book: Mutex::default(),
            decoy: PasswordDigest::of(""),
        };
        let seeded = accounts.register(SEEDED_EMAIL, SEEDED_PASSWORD, "Analytical Engines");
        debug_assert!(seeded.is_ok(), "an empty book has room");
        accounts
    }

    /// Adds a user. An address that begins with `mfa+` asks for a second factor from then on.
    pub(super) fn register(
        &self,
        email: &str,
        password: &str,
        organization_name: &str,
    ) -> Result<Arc<User>, Refusal> {
        let email = email.to_lowercase();
        let user = Arc::new(User {
            id: format!("usr_{}", random_id()),
            organization_id: format!("org_{}", random_id()),
            organization_name: organization_name.to_owned(),
            second_factor: email.starts_with("mfa+"),
            password: PasswordDigest::of(password),
            email: email.clone(),
        });
        let mut book = self.book.lock();
        if book.users.contains_key(&email) {
            return Err(Refusal::EmailTaken);
        }
        if book.users.len() >= MAX_USERS {
            return Err(Refusal::Full);
        }
        book.users.insert(email, Arc::clone(&user));
        Ok(user)
    }

    /// The user with this password. An unknown user and a wrong password take the same way.
    pub(super) fn verify(&self, email: &str, password: &str) -> Result<Arc<User>, Refusal> {
        let user = self.book.lock().users.get(&email.to_lowercase()).cloned();
        let expected = user.as_ref().map_or(&self.decoy, |user| &user.password);
        let matches = expected.matches(password);
        user.filter(|_| matches).ok_or(Refusal::Invalid)
    }

    /// Waits for the second factor of `user`; the token names the wait.
    pub(super) fn challenge(&self, user: Arc<User>, now: SystemTime) -> Result<String, Refusal> {
        let mut book = self.book.lock();
        book.challenges.retain(|_, challenge| challenge.until > now);
        if book.challenges.len() >= MAX_CHALLENGES {
            return Err(Refusal::Full);
        }
        let token = random_id();
        let challenge = Challenge {
            user,
            until: now + CHALLENGE_LIFETIME,
            bad_codes: 0,
        };
        book.challenges.insert(token.clone(), challenge);
        Ok(token)
    }

    /// The user whose second factor `code` is. A token is good once, and for five wrong codes.
    pub(super) fn answer_challenge(
        &self,
        token: &str,
        code: &str,
        now: SystemTime,
    ) -> Result<Arc<User>, Refusal> {
        let mut book = self.book.lock();
        let challenge = book
            .challenges
            .get_mut(token)
            .filter(|challenge| challenge.until > now)
            .ok_or(Refusal::Invalid)?;
        if challenge.bad_codes >= MAX_BAD_CODES {
            return Err(Refusal::TooManyCodes);
        }
        if code != SECOND_FACTOR {
            challenge.bad_codes += 1;
            return Err(Refusal::Invalid);
        }
        let user = Arc::clone(&challenge.user);
        book.challenges.remove(token);
        Ok(user)
    }

    /// Opens a session that `access` stands for.
    pub(super) fn open(
        &self,
        user: Arc<User>,
        access: &str,
        mfa_verified_at: Option<SystemTime>,
        now: SystemTime,
    ) -> Result<Grant, Refusal> {
        let session = Session {
            user,
            family: format!("fam_{}", random_id()),
            mfa_verified_at,
            refresh: [0; 32],
            access_until: now,
            refresh_until: now,
        };
        self.book.lock().issue(session, access, now)
    }

    /// The session that an access token stands for.
    pub(super) fn session(&self, access: &str, now: SystemTime) -> Option<Session> {
        let book = self.book.lock();
        book.sessions
            .get(&digest_of(access))
            .filter(|session| session.access_until > now)
            .cloned()
    }

    /// The session that a refresh token would renew.
    pub(super) fn renewable(&self, refresh: &str, now: SystemTime) -> Option<Session> {
        let book = self.book.lock();
        let access = book.refreshes.get(&digest_of(refresh))?;
        book.sessions
            .get(access)
            .filter(|session| session.refresh_until > now)
            .cloned()
    }

    /// Replaces both tokens of the session that `refresh` belongs to; the old ones end.
    pub(super) fn renew(
        &self,
        refresh: &str,
        access: &str,
        now: SystemTime,
    ) -> Result<Grant, Refusal> {
        let mut book = self.book.lock();
        let old = book.refreshes.get(&digest_of(refresh)).copied();
        let session = old
            .and_then(|old| book.remove(&old))
            .filter(|session| session.refresh_until > now)
            .ok_or(Refusal::Invalid)?;
        book.issue(session, access, now)
    }

    /// Ends the session that an access token stands for.
    pub(super) fn close(&self, access: &str) -> bool {
        self.book.lock().remove(&digest_of(access)).is_some()
    }
}

impl Book {
    fn issue(
        &mut self,
        mut session: Session,
        access: &str,
        now: SystemTime,
    ) -> Result<Grant, Refusal> {
        if self.sessions.len() >= MAX_SESSIONS {
            self.sweep(now);
        }
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(Refusal::Full);
        }
        let grant = Grant {
            refresh: random_id(),
            csrf: random_id(),
        };
        let access = digest_of(access);
        session.refresh = digest_of(&grant.refresh);
        session.access_until = now + ACCESS_LIFETIME;
        session.refresh_until = now + REFRESH_LIFETIME;
        self.refreshes.insert(session.refresh, access);
        self.sessions.insert(access, session);
        Ok(grant)
    }

    fn remove(&mut self, access: &Digest) -> Option<Session> {
        let session = self.sessions.remove(access)?;
        self.refreshes.remove(&session.refresh);
        Some(session)
    }

    fn sweep(&mut self, now: SystemTime) {
        self.sessions
            .retain(|_, session| session.refresh_until > now);
        let sessions = &self.sessions;
        self.refreshes
            .retain(|_, access| sessions.contains_key(access));
    }
}

/// A salted password digest.
struct PasswordDigest {
    salt: [u8; 24],
    digest: Digest,
}

impl PasswordDigest {
    fn of(password: &str) -> Self {
        let salt = random_bytes();
        let mut digest = [0; 32];
        pbkdf2::derive(PBKDF2, ITERATIONS, &salt, password.as_bytes(), &mut digest);
        Self { salt, digest }
    }

    /// Compares in constant time.
    fn matches(&self, password: &str) -> bool {
        pbkdf2::verify(
            PBKDF2,
            ITERATIONS,
            &self.salt,
            password.as_bytes(),
            &self.digest,
        )
        .is_ok()
    }
}

impl std::fmt::Debug for PasswordDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

fn digest_of(token: &str) -> Digest {
    let mut bytes = [0; 32];
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// How long an access token is good.
pub(super) const ACCESS_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How long a refresh token is good.
pub(super) const REFRESH_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

const CHALLENGE_LIFETIME: Duration = Duration::from_secs(5 * 60);
const MAX_BAD_CODES: u32 = 5;

/// The code that every second factor of the demo shows.
const SECOND_FACTOR: &str = "000000";

const MAX_USERS: usize = 1_000;
const MAX_SESSIONS: usize = 10_000;
const MAX_CHALLENGES: usize = 1_000;

const PBKDF2: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA256;

/// Few, because the users are invented and a worker answers meanwhile; a real backend takes 600,000.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(1_000).expect("1,000 is not zero");

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn ada(accounts: &Accounts) -> Arc<User> {
        accounts.verify(SEEDED_EMAIL, SEEDED_PASSWORD).unwrap()
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_are_the_same_refusal() {
        let accounts = Accounts::seeded();
        let wrong = accounts.verify(SEEDED_EMAIL, "guess").unwrap_err();
        let unknown = accounts.verify("nobody@example.com", "").unwrap_err();
        assert_eq!((wrong, unknown), (Refusal::Invalid, Refusal::Invalid));
        assert!(accounts.verify("ADA@example.com", SEEDED_PASSWORD).is_ok());
    }

    #[test]
    fn an_access_token_ends_after_fifteen_minutes_and_can_be_renewed_once() {
        let accounts = Accounts::seeded();
        let grant = accounts.open(ada(&accounts), "one", None, START).unwrap();
        let later = START + ACCESS_LIFETIME;
        assert!(
            accounts
                .session("one", later - Duration::from_secs(1))
                .is_some()
        );
        assert!(accounts.session("one", later).is_none());

        let family = accounts.renewable(&grant.refresh, later).unwrap().family;
        accounts.renew(&grant.refresh, "two", later).unwrap();
        assert_eq!(accounts.session("two", later).unwrap().family, family);
        let again = accounts.renew(&grant.refresh, "three", later);
        assert_eq!(again.unwrap_err(), Refusal::Invalid);
    }

    #[test]
    fn a_closed_session_is_gone_with_its_refresh_token() {
        let accounts = Accounts::seeded();
        let grant = accounts.open(ada(&accounts), "one", None, START).unwrap();
        assert!(accounts.close("one"));
        assert!(!accounts.close("one"));
        assert!(accounts.session("one", START).is_none());
        assert!(accounts.renewable(&grant.refresh, START).is_none());
    }

    #[test]
    fn a_challenge_bears_five_wrong_codes_and_is_good_once() {
        let accounts = Accounts::seeded();
        let spent = accounts.challenge(ada(&accounts), START).unwrap();
        for _ in 0..MAX_BAD_CODES {
            let wrong = accounts.answer_challenge(&spent, "123456", START);
            assert_eq!(wrong.unwrap_err(), Refusal::Invalid);
        }
        let late = accounts.answer_challenge(&spent, SECOND_FACTOR, START);
        assert_eq!(late.unwrap_err(), Refusal::TooManyCodes);

        let fresh = accounts.challenge(ada(&accounts), START).unwrap();
        assert!(
            accounts
                .answer_challenge(&fresh, SECOND_FACTOR, START)
                .is_ok()
        );
        assert!(
            accounts
                .answer_challenge(&fresh, SECOND_FACTOR, START)
                .is_err()
        );
    }

    #[test]
    fn full_books_refuse_and_forget_what_has_ended() {
        let accounts = Accounts::seeded();
        let user = ada(&accounts);
        for count in 0..MAX_SESSIONS {
            let access = count.to_string();
            accounts
                .open(Arc::clone(&user), &access, None, START)
                .unwrap();
        }
        let full = accounts.open(Arc::clone(&user), "more", None, START);
        assert_eq!(full.unwrap_err(), Refusal::Full);
        assert!(
            accounts
                .open(user, "more", None, START + REFRESH_LIFETIME)
                .is_ok()
        );
    }
}

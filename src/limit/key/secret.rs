//! What keys are hashed with, so that nobody can tell an address or an account from a key, or choose one that shares
//! the bucket of somebody else.

use std::hash::{BuildHasher, Hasher, RandomState};

use aws_lc_rs::hmac;
use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

use super::Key;

/// The secret of one limit.
pub struct KeySecret(Kind);

enum Kind {
    /// Drawn at start; as good as its seeds are secret, and cheap.
    Process(Box<[Seed; 2]>),
    /// The same in every replica: keys leave the process, so that they are message authentication codes.
    Shared(Box<hmac::Key>),
}

struct Seed {
    start: u64,
    seeds: SharedSeed,
}

impl KeySecret {
    /// A secret that the operating system drew for this limit alone and that leaves it in no form. At 128 bits, two of
    /// a million keys meet by chance once in 10^26 limits.
    #[must_use]
    pub fn draw() -> Self {
        Self(Kind::Process(Box::new([Seed::draw(), Seed::draw()])))
    }

    /// The secret of the limit `name` among processes that share `secret`: the same request has the same key in all of
    /// them, and whoever reads the store cannot tell whose it is. Another limit has other keys.
    #[must_use]
    pub fn shared(secret: &[u8], name: &str) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = hmac::sign(&root, format!("vestibule limit {name}").as_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        Self(Kind::Shared(Box::new(key)))
    }

    /// Hashes what `absorb` writes.
    pub(super) fn fold(&self, absorb: impl Fn(&mut dyn Hasher)) -> Key {
        match &self.0 {
            Kind::Process(seeds) => {
                let [high, low] = seeds.each_ref().map(|seed| {
                    let mut hasher = FoldHasher::with_seed(seed.start, &seed.seeds);
                    absorb(&mut hasher);
                    hasher.finish()
                });
                Key(u128::from(high) << 64 | u128::from(low))
            }
            Kind::Shared(key) => {
                let mut code = Code(hmac::Context::with_key(key));
                absorb(&mut code);
                let tag = code.0.sign();
                let half = tag.as_ref().first_chunk().copied().unwrap_or_default();
                Key(u128::from_be_bytes(half))
            }
        }
    }
}

impl Seed {
    /// The standard library's `RandomState` is seeded by the operating system; foldhash's own seed is not.
    fn draw() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        Self {
            start: random(),
            seeds: SharedSeed::from_u64(random()),
        }
    }
}

struct Code(hmac::Context);

/// Numbers are written in one order of bytes: replicas need not be machines of one kind.
impl Hasher for Code {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn write_u32(&mut self, number: u32) {
        self.write(&number.to_be_bytes());
    }

    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_be_bytes());
    }

    fn write_u128(&mut self, number: u128) {
        self.write(&number.to_be_bytes());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    /// A code is signed, never finished.
    fn finish(&self) -> u64 {
        0
    }
}

impl std::fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySecret(***)")
    }
}

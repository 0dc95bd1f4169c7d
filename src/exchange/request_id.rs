//! The names of exchanges: what a refusal, the log and the upstream call one and the same request.

use bytes::BytesMut;
use http::HeaderValue;
use parking_lot::Mutex;

/// Makes ids that are unique in the fleet for all practical purposes; one a worker, so that nobody waits for the lock.
#[derive(Debug)]
pub struct RequestIds {
    /// What the ids of this worker begin with.
    worker: [u8; 16],
    next: Mutex<NextId>,
}

#[derive(Debug)]
struct NextId {
    count: u64,
    /// Ids are cut from pages, and a page is used again once its ids are gone: they cost no allocation.
    page: BytesMut,
}

impl RequestIds {
    /// Those of one worker.
    #[must_use]
    pub fn of_worker() -> Self {
        let mut seed = [0; 16];
        // Without randomness the ids of two processes could meet; they would still be unique within each.
        let _ = aws_lc_rs::rand::fill(&mut seed);
        let [worker, count] = [0, 8].map(|at| {
            seed.get(at..at + 8)
                .and_then(|bytes| bytes.try_into().ok())
                .map_or(0, u64::from_le_bytes)
        });
        Self {
            worker: hex(worker),
            next: Mutex::new(NextId {
                count,
                page: BytesMut::with_capacity(PAGE),
            }),
        }
    }

    /// The next one: 32 hex digits.
    #[must_use]
    pub fn next(&self) -> HeaderValue {
        let mut next = self.next.lock();
        next.count = next.count.wrapping_add(1);
        let count = hex(scattered(next.count));
        next.page.extend_from_slice(&self.worker);
        next.page.extend_from_slice(&count);
        HeaderValue::from_maybe_shared(next.page.split().freeze())
            .unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

/// What the oldest exchange of a page can keep from being freed.
const PAGE: usize = 1024;

/// One to one, so ids stay unique, but how many requests came between two of them cannot be read off (the finalizer of
/// Steele, Lea and Flood's SplitMix).
fn scattered(count: u64) -> u64 {
    let count = (count ^ (count >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let count = (count ^ (count >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    count ^ (count >> 31)
}

fn hex(word: u64) -> [u8; 16] {
    let digit = |nibble: u8| {
        if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + nibble - 10
        }
    };
    let mut text = [0; 16];
    for (pair, byte) in text.chunks_exact_mut(2).zip(word.to_be_bytes()) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn request_ids_are_32_hex_digits_and_never_repeat() {
        let ids = RequestIds::of_worker();
        let made: HashSet<String> = (0..10_000)
            .map(|_| ids.next().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(made.len(), 10_000);
        let is_id = |id: &String| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(made.iter().all(is_id));
    }
}

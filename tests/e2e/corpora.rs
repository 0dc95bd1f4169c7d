//! The corpora of the fuzz targets, without a fuzzer: each seed, all that it begins with, and each with a byte changed.

#[path = "../../fuzz/src/checks.rs"]
mod checks;

use std::path::Path;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut seeds = 0;
    for seed in std::fs::read_dir(folder.join(target)).unwrap() {
        let mut bytes = std::fs::read(seed.unwrap().path()).unwrap();
        for end in 0..=bytes.len() {
            check(&bytes[..end]);
        }
        for at in 0..bytes.len() {
            for other in [0, b'\r', b'\n', b' ', b'"', b'%', b'.', b'/', 0x80, 0xff] {
                let byte = std::mem::replace(&mut bytes[at], other);
                check(&bytes);
                bytes[at] = byte;
            }
        }
        seeds += 1;
    }
    assert!(seeds > 5, "the corpus of {target} is gone");
}

#[test]
fn paths_have_one_spelling() {
    replay("path", checks::path);
}

#[test]
fn no_client_chooses_its_own_address() {
    replay("forwarded", checks::forwarded);
}

#[test]
fn grpc_web_bodies_read_the_same_however_they_are_cut() {
    replay("grpc_web", checks::grpc_web);
}

#[test]
fn heads_are_read_as_the_parser_behind_the_scan_reads_them() {
    replay("head", checks::head);
}

#[test]
fn tokens_are_what_was_sent() {
    replay("token", checks::token);
}

#[test]
fn cookies_are_found_where_every_reader_finds_them() {
    replay("cookie", checks::cookie);
}

#[test]
fn no_account_in_a_body_is_overlooked() {
    replay("peek", checks::peek);
}

#[test]
fn configurations_that_are_accepted_can_be_written_out() {
    replay("config", checks::config);
}

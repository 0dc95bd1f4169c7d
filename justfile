# What CI calls, by parts. Bare `just` lists the recipes.

_list:
    @just --list --unsorted

# Everything that CI runs
ci:
    .ci/run

# Types and lints
check:
    cargo clippy --locked --all-targets -- -D warnings

# Formatting
fmt:
    cargo fmt

# Layering, purity, words, example configurations
tidy:
    cargo test --locked --test tidy

# Every test, peers installed first
test *ARGS:
    tests/run {{ARGS}}

# End-to-end tests alone, or a part of them: `just e2e jwt`
e2e *ARGS:
    tests/run --test e2e -- {{ARGS}}

# Licences, bans, sources
deny:
    .ci/deny

# Seconds of fuzzing for each target; `just fuzz 3600 head` for an hour of one
fuzz *ARGS:
    .ci/fuzz {{ARGS}}

# API documentation, warnings are errors
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# CPU per request side by side with nginx
load *ARGS:
    benches/load/run {{ARGS}}

# The gateway in front of its embedded backend
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

//! The proof that a request may pass.

/// Proof that [`super::Rules::decide`] agreed. Whoever forwards a request must give one up; nobody else can make one,
/// it cannot be copied, and one agreement is good for one request.
#[must_use = "a permit that is dropped forwards nothing"]
#[derive(Debug)]
pub struct Permit {
    _made_here: (),
}

impl Permit {
    pub(super) fn grant() -> Self {
        Self { _made_here: () }
    }
}

/// A permit for tests of rooms that take one.
#[cfg(test)]
pub(crate) fn for_tests() -> Permit {
    Permit::grant()
}

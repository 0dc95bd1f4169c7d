//! Reads secrets from where the configuration says they are.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::value::SecretRef;

/// A secret: never printed, wiped from memory when dropped, compared in constant time.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why a secret could not be had. Names where it should be, never what it is.
#[derive(Debug)]
pub enum SecretError {
    /// The environment variable is not set.
    Unset(String),
    /// The reference leads to nothing but an empty text.
    Empty(SecretRef),
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The path leads to a folder, a pipe or a device.
    NoFile(PathBuf),
    /// The file is larger than any secret.
    TooLarge(PathBuf),
    /// Every user of the machine may read or write the file.
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl SecretRef {
    /// Reads the secret.
    ///
    /// # Errors
    ///
    /// When it is missing, empty, too large, or open to every user of the machine.
    pub fn read(&self) -> Result<Secret, SecretError> {
        self.read_with(|name| std::env::var_os(name))
    }

    fn read_with(
        &self,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Secret, SecretError> {
        let secret = match self {
            Self::Env(name) => {
                let value = environment(name).ok_or_else(|| SecretError::Unset(name.clone()))?;
                Secret::new(value.into_vec())
            }
            Self::File(path) => read_file(path)?,
        };
        if secret.expose().is_empty() {
            return Err(SecretError::Empty(self.clone()));
        }
        Ok(secret)
    }
}

impl Secret {
    /// Takes over `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret itself: not to be logged, printed or sent.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

fn read_file(path: &Path) -> Result<Secret, SecretError> {
    let unreadable = |error| SecretError::Unreadable(path.to_owned(), error);
    // Asked before opening, because opening a pipe would wait for its writer.
    let facts = fs::metadata(path).map_err(unreadable)?;
    if !facts.is_file() {
        return Err(SecretError::NoFile(path.to_owned()));
    }
    let file = File::open(path).map_err(unreadable)?;
    let facts = file.metadata().map_err(unreadable)?;
    let mode = facts.permissions().mode() & 0o777;
    if mode & OPEN_TO_OTHERS != 0 {
        let path = path.to_owned();
        return Err(SecretError::Exposed { path, mode });
    }
    // With room for everything at once, no copy is left behind by a buffer that grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST_SECRET + 1));
    file.take(LARGEST_SECRET as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > LARGEST_SECRET {
        return Err(SecretError::TooLarge(path.to_owned()));
    }
    let length = without_line_end(&bytes).len();
    bytes.truncate(length);
    Ok(Secret(bytes))
}

/// Editors end the last line; the secret does not.
fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Eq for Secret {}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset(name) => write!(f, "the environment variable `{name}` is not set"),
            Self::Empty(SecretRef::Env(name)) => {
                write!(f, "the environment variable `{name}` is empty")
            }
            Self::Empty(SecretRef::File(path)) => {
                write!(f, "the secret file {} is empty", path.display())
            }
            Self::Unreadable(path, error) => {
                write!(f, "cannot read the secret file {}: {error}", path.display())
            }
            Self::NoFile(path) => write!(f, "{} is no regular file", path.display()),
            Self::TooLarge(path) => write!(
                f,
                "the secret file {} is larger than {LARGEST_SECRET} bytes",
                path.display()
            ),
            Self::Exposed { path, mode } => write!(
                f,
                "the secret file {0} is open to every user (mode {mode:04o}): `chmod o-rwx {0}`, in Kubernetes `defaultMode: 0440`",
                path.display()
            ),
        }
    }
}

impl std::error::Error for SecretError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(_, error) => Some(error),
            _ => None,
        }
    }
}

/// Reading gives the secret away, and writing puts another in its place.
const OPEN_TO_OTHERS: u32 = 0o006;
const LARGEST_SECRET: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32, content: &[u8]) -> (tempfile::TempDir, SecretRef) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, SecretRef::File(path))
    }

    fn check(content: &[u8], expected: &[u8]) {
        let (_folder, reference) = file(0o600, content);
        assert_eq!(reference.read().unwrap().expose(), expected);
    }

    fn refused(mode: u32, content: &[u8]) -> String {
        let (_folder, reference) = file(mode, content);
        reference.read().unwrap_err().to_string()
    }

    #[test]
    fn one_line_end_is_not_part_of_a_secret() {
        check(b"hunter2", b"hunter2");
        check(b"hunter2\n", b"hunter2");
        check(b"hunter2\r\n", b"hunter2");
        check(b"hunter2\n\n", b"hunter2\n");
        check(b"\xff\x00", b"\xff\x00");
    }

    #[test]
    fn a_file_open_to_every_user_is_refused_with_the_remedy() {
        let message = refused(0o644, b"hunter2");
        assert!(
            message.contains("0644") && message.contains("chmod o-rwx"),
            "{message}"
        );
        assert!(refused(0o602, b"hunter2").contains("0602"));
        assert!(!message.contains("hunter2"));
    }

    #[test]
    fn a_file_that_the_group_reads_is_fine() {
        let (_folder, reference) = file(0o440, b"hunter2");
        assert!(reference.read().is_ok());
    }

    #[test]
    fn an_empty_secret_is_refused() {
        assert!(refused(0o600, b"").contains("is empty"));
        assert!(refused(0o600, b"\n").contains("is empty"));
        let reference = SecretRef::Env("TOKEN".to_owned());
        let error = reference.read_with(|_| Some(OsString::new())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the environment variable `TOKEN` is empty"
        );
    }

    #[test]
    fn a_missing_variable_is_named() {
        let reference = SecretRef::Env("TOKEN".to_owned());
        let error = reference.read_with(|_| None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the environment variable `TOKEN` is not set"
        );
    }

    #[test]
    fn a_variable_is_taken_as_it_is() {
        let reference = SecretRef::Env("TOKEN".to_owned());
        let secret = reference.read_with(|_| Some("s\n".into())).unwrap();
        assert_eq!(secret.expose(), b"s\n");
    }

    #[test]
    fn a_folder_and_an_endless_file_are_no_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let reference = SecretRef::File(folder.path().to_owned());
        assert!(matches!(reference.read(), Err(SecretError::NoFile(_))));
        assert!(refused(0o600, &vec![b'x'; LARGEST_SECRET + 1]).contains("larger"));
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?} {secret:#?}"), "*** ***");
        assert_eq!(secret, Secret::new(b"hunter2".to_vec()));
    }
}

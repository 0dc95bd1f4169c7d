//! Signatures. `jsonwebtoken` with the aws-lc provider computes; which key and which algorithm is said by us.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;

use crate::config::Algorithm;

/// The algorithm that `alg` names, exactly as RFC 7518 and RFC 8037 spell it.
#[must_use]
pub fn algorithm_named(alg: &str) -> Option<Algorithm> {
    Some(match alg {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        _ => return None,
    })
}

/// Whether the algorithm works with a secret that both sides know.
#[must_use]
pub fn is_hmac(algorithm: Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
    )
}

/// Whether the algorithm works with RSA keys.
#[must_use]
pub fn is_rsa(algorithm: Algorithm) -> bool {
    use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
    matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512)
}

/// The shortest secret for `algorithm`: as long as its hash (RFC 7518 section 3.2).
#[must_use]
pub fn least_secret(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 32,
    }
}

/// Whether `signature` over `message` was made with the other half of `key`.
#[must_use]
pub fn signature_is_good(
    key: &DecodingKey,
    algorithm: Algorithm,
    message: &[u8],
    signature: &Vec<u8>,
) -> bool {
    let Some(algorithm) = spoken_by_library(algorithm, signature.len()) else {
        return false;
    };
    // The provider is named here, so that no process-wide default can be missing or be another one.
    (DEFAULT_PROVIDER.verifier_factory)(&algorithm, key)
        .is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
}

/// The library's word for `algorithm`; `None` when a signature of `length` bytes cannot be one of it, such as a DER
/// sequence in place of the two raw numbers of ECDSA.
fn spoken_by_library(algorithm: Algorithm, length: usize) -> Option<jsonwebtoken::Algorithm> {
    use jsonwebtoken::Algorithm as Library;
    let rsa = (256..=1024).contains(&length);
    let (spoken, fits) = match algorithm {
        Algorithm::RS256 => (Library::RS256, rsa),
        Algorithm::RS384 => (Library::RS384, rsa),
        Algorithm::RS512 => (Library::RS512, rsa),
        Algorithm::PS256 => (Library::PS256, rsa),
        Algorithm::PS384 => (Library::PS384, rsa),
        Algorithm::PS512 => (Library::PS512, rsa),
        Algorithm::ES256 => (Library::ES256, length == 64),
        Algorithm::ES384 => (Library::ES384, length == 96),
        Algorithm::EdDSA => (Library::EdDSA, length == 64),
        Algorithm::HS256 => (Library::HS256, length == 32),
        Algorithm::HS384 => (Library::HS384, length == 48),
        Algorithm::HS512 => (Library::HS512, length == 64),
    };
    fits.then_some(spoken)
}

/// The signature checks of this build do not work; the gateway must not start.
#[derive(Debug)]
pub struct SelfTestFailed(Algorithm);

impl fmt::Display for SelfTestFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the signature self test failed for {:?}", self.0)
    }
}

impl std::error::Error for SelfTestFailed {}

/// Verifies one known signature of each family, and the same over another message. Called whenever issuers are
/// compiled: a build whose cryptography does not work refuses to start instead of refusing (or accepting) every token.
///
/// # Errors
/// [`SelfTestFailed`] names the family.
pub fn self_test() -> Result<(), SelfTestFailed> {
    use Algorithm::{ES256, EdDSA, HS256, RS256};
    known(
        HS256,
        DecodingKey::from_base64_secret(HMAC_SECRET),
        HMAC_JWS,
    )?;
    known(
        RS256,
        DecodingKey::from_rsa_components(RSA_N, "AQAB"),
        RSA_JWS,
    )?;
    known(ES256, DecodingKey::from_ec_components(EC_X, EC_Y), EC_JWS)?;
    known(EdDSA, DecodingKey::from_ed_components(ED_X), ED_JWS)
}

fn known(
    algorithm: Algorithm,
    key: jsonwebtoken::errors::Result<DecodingKey>,
    jws: &str,
) -> Result<(), SelfTestFailed> {
    let split = key.ok().zip(jws.rsplit_once('.'));
    let works = split.is_some_and(|(key, (message, signature))| {
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        signature_is_good(&key, algorithm, message.as_bytes(), &signature)
            && !signature_is_good(&key, algorithm, b"another message", &signature)
    });
    works.then_some(()).ok_or(SelfTestFailed(algorithm))
}

// RFC 7515 appendices A.1, A.2 and A.3; RFC 8037 appendix A.4.
const HMAC_SECRET: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ+EstJQLr/T+1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow==";
const HMAC_JWS: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RSA_JWS: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const EC_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const EC_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const EC_JWS: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
const ED_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const ED_JWS: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_self_test_passes_in_this_build() {
        self_test().unwrap();
    }

    #[test]
    fn the_self_test_notices_a_key_that_does_not_fit() {
        let other = DecodingKey::from_ed_components(EC_X);
        let failed = known(Algorithm::EdDSA, other, ED_JWS).unwrap_err();
        assert!(failed.to_string().contains("EdDSA"), "{failed}");
    }

    #[test]
    fn a_key_of_another_family_verifies_nothing() {
        let (message, signature) = HMAC_JWS.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let rsa = DecodingKey::from_rsa_components(RSA_N, "AQAB").unwrap();
        assert!(!signature_is_good(
            &rsa,
            Algorithm::HS256,
            message.as_bytes(),
            &signature
        ));
    }
}

//! Runs a feature over every pair of protocols.

/// Expands to a module with a test for each of {h1, TLS h1, TLS h2, h2c} × {http, h2c, h2}.
#[macro_export]
macro_rules! matrix {
    ($(#[doc = $doc:literal])* async fn $name:ident($via:ident, $speaks:ident) $body:block) => {
        mod $name {
            #[allow(unused_imports, reason = "each feature uses what it needs")]
            use super::*;
            use $crate::support::client::Via;
            use $crate::support::origin::Speaks;

            $(#[doc = $doc])*
            async fn feature($via: Via, $speaks: Speaks) $body

            $crate::matrix!(@pair h1_to_http, H1, Http);
            $crate::matrix!(@pair h1_to_h2c, H1, H2c);
            $crate::matrix!(@pair h1_to_h2, H1, H2);
            $crate::matrix!(@pair tls_h1_to_http, TlsH1, Http);
            $crate::matrix!(@pair tls_h1_to_h2c, TlsH1, H2c);
            $crate::matrix!(@pair tls_h1_to_h2, TlsH1, H2);
            $crate::matrix!(@pair tls_h2_to_http, TlsH2, Http);
            $crate::matrix!(@pair tls_h2_to_h2c, TlsH2, H2c);
            $crate::matrix!(@pair tls_h2_to_h2, TlsH2, H2);
            $crate::matrix!(@pair h2c_to_http, H2c, Http);
            $crate::matrix!(@pair h2c_to_h2c, H2c, H2c);
            $crate::matrix!(@pair h2c_to_h2, H2c, H2);
        }
    };
    (@pair $test:ident, $via:ident, $speaks:ident) => {
        #[tokio::test]
        async fn $test() {
            feature(Via::$via, Speaks::$speaks).await;
        }
    };
}

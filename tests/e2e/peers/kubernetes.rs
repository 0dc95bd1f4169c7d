//! The Kubernetes manifests: read by the reference parser of YAML, and held against each other and the configurations
//! that they mount. That those compile is held by `tests/docs.rs`.

use std::path::Path;

use serde_json::json;

use super::program::Program;

#[tokio::test]
async fn manifests_are_whole_and_agree_with_the_configuration() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/deploy/kubernetes");
    let asked = json!({ "folder": folder });
    Program::Python("manifests").passes(&asked).await;
}

//! Artifacts of files in the embedded registry, as `oras push` makes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::http::{Answer, request};
use crate::server::TestServer;

impl TestServer {
    /// Puts these files into the registry under a name.
    pub fn push_artifact(&self, repository: &str, tag: &str, files: &[(&str, &str)]) {
        let credential = format!("Authorization: Basic {}", STANDARD.encode(format!("tester:{}", self.token())));
        let send = |method: &str, path: &str, kind: &str, body: &[u8]| -> Answer {
            let kind = format!("Content-Type: {kind}");
            request(self.authority(), method, path, &[&credential, &kind], body).expect("the registry answers")
        };
        let put = |bytes: &[u8]| {
            let digest = sha256(bytes);
            let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
            let answer = send("POST", &path, "application/octet-stream", bytes);
            assert_eq!(answer.status, 201, "{}", answer.body);
            digest
        };
        let layer = |(name, text): &(&str, &str)| {
            json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": put(text.as_bytes()),
                "size": text.len(),
                "annotations": { "org.opencontainers.image.title": name },
            })
        };
        let layers: Vec<Value> = files.iter().map(layer).collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let config = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": put(b"{}"), "size": 2 });
        let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
        let path = format!("/v2/{repository}/manifests/{tag}");
        let answer = send("PUT", &path, kind, manifest.to_string().as_bytes());
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
}

fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

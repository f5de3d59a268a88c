//! Waves, and what they hear of.

use cooper_api::rest::{ImpactQuery, ImpactView, ListWavesQuery, RegistryHookView, WaveList, WaveView};
use cooper_types::WaveId;
use reqwest::Method;

use super::Client;
use crate::ClientError;

impl Client {
    /// Waves, the newest first.
    pub async fn list_waves(&self, top: u32) -> Result<WaveList, ClientError> {
        let call = self.http.request(Method::GET, "/api/v1/waves");
        self.http.json(call.query(&ListWavesQuery { top: Some(top) })).await
    }

    /// A wave with its members.
    pub async fn get_wave(&self, id: WaveId) -> Result<WaveView, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/waves/{id}"))).await
    }

    /// Lets no member of a wave begin for now.
    pub async fn pause_wave(&self, id: WaveId) -> Result<WaveView, ClientError> {
        self.http.json(self.http.request(Method::POST, &format!("/api/v1/waves/{id}/pause"))).await
    }

    /// Lets members of a wave begin again.
    pub async fn resume_wave(&self, id: WaveId) -> Result<WaveView, ClientError> {
        self.http.json(self.http.request(Method::POST, &format!("/api/v1/waves/{id}/resume"))).await
    }

    /// Ends a wave early.
    pub async fn cancel_wave(&self, id: WaveId) -> Result<WaveView, ClientError> {
        self.http.json(self.http.request(Method::POST, &format!("/api/v1/waves/{id}/cancel"))).await
    }

    /// Tries again what came to nothing in a wave; the new wave.
    pub async fn retry_wave(&self, id: WaveId) -> Result<WaveView, ClientError> {
        self.http.json(self.http.request(Method::POST, &format!("/api/v1/waves/{id}/retry"))).await
    }

    /// Where other registries tell of pushes.
    pub async fn get_registry_hook(&self) -> Result<RegistryHookView, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/registry-hook")).await
    }

    /// What a new image would rebuild.
    pub async fn get_impact(&self, image: &str) -> Result<ImpactView, ClientError> {
        let call = self.http.request(Method::GET, "/api/v1/impact");
        self.http.json(call.query(&ImpactQuery { image: image.to_owned() })).await
    }
}

//! Webhooks.

use cooper_api::rest::{
    ListWebhookEventsQuery, WebhookConfig, WebhookEventInfo, WebhookEventList, WebhookList, WebhookSettings,
    WebhookView,
};
use cooper_types::{EventId, WebhookName};
use reqwest::Method;

use super::Client;
use crate::ClientError;

impl Client {
    /// All webhooks.
    pub async fn list_webhooks(&self) -> Result<WebhookList, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/webhooks")).await
    }

    /// Makes a webhook: the answer is the only place where its secret is ever shown.
    pub async fn create_webhook(&self, webhook: &WebhookSettings) -> Result<WebhookView, ClientError> {
        self.http.json(self.http.request(Method::POST, "/api/v1/webhooks").json(webhook)).await
    }

    /// A webhook.
    pub async fn get_webhook(&self, name: &WebhookName) -> Result<WebhookView, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/webhooks/{name}"))).await
    }

    /// Changes what is said of a webhook and nothing else.
    pub async fn update_webhook(
        &self,
        name: &WebhookName,
        change: &WebhookSettings,
    ) -> Result<WebhookView, ClientError> {
        self.http.json(self.http.request(Method::PATCH, &format!("/api/v1/webhooks/{name}")).json(change)).await
    }

    /// Deletes a webhook, with what waits for it.
    pub async fn delete_webhook(&self, name: &WebhookName) -> Result<(), ClientError> {
        self.http.send(self.http.request(Method::DELETE, &format!("/api/v1/webhooks/{name}"))).await?;
        Ok(())
    }

    /// A webhook's address, and the names of its headers.
    pub async fn webhook_config(&self, name: &WebhookName) -> Result<WebhookConfig, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/webhooks/{name}/config"))).await
    }

    /// Has a ping sent to a webhook.
    pub async fn ping_webhook(&self, name: &WebhookName) -> Result<WebhookEventInfo, ClientError> {
        self.http.json(self.http.request(Method::POST, &format!("/api/v1/webhooks/{name}/ping"))).await
    }

    /// What was sent to a webhook and what waits, the newest first.
    pub async fn list_webhook_events(&self, name: &WebhookName, top: u32) -> Result<WebhookEventList, ClientError> {
        let call = self.http.request(Method::GET, &format!("/api/v1/webhooks/{name}/events"));
        self.http.json(call.query(&ListWebhookEventsQuery { top: Some(top) })).await
    }

    /// Has an event sent to a webhook once more.
    pub async fn redeliver(&self, name: &WebhookName, event: &EventId) -> Result<WebhookEventInfo, ClientError> {
        let path = format!("/api/v1/webhooks/{name}/events/{event}/redeliver");
        self.http.json(self.http.request(Method::POST, &path)).await
    }
}

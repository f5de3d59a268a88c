//! Webhooks, and what was sent to them.

use super::{Auth, Method, Parameter, ParameterKind, Route, json, route};

const LIST_WEBHOOK_EVENTS_QUERY: &[Parameter] =
    &[Parameter { name: "top", kind: ParameterKind::Number, summary: "How many at most: 1 to 1000, 50 if absent" }];

pub(super) const ROUTES: &[Route] = &[
    Route {
        summary: "List webhooks",
        response: json("WebhookList"),
        ..route(Method::Get, "/api/v1/webhooks", Auth::Admin, "listWebhooks", 200)
    },
    Route {
        summary: "Make a webhook; its secret is shown once",
        request: json("WebhookSettings"),
        response: json("WebhookView"),
        ..route(Method::Post, "/api/v1/webhooks", Auth::Admin, "createWebhook", 201)
    },
    Route {
        summary: "Show a webhook",
        response: json("WebhookView"),
        ..route(Method::Get, "/api/v1/webhooks/{id}", Auth::Admin, "getWebhook", 200)
    },
    Route {
        summary: "Change what is said of a webhook and nothing else",
        request: json("WebhookSettings"),
        response: json("WebhookView"),
        ..route(Method::Patch, "/api/v1/webhooks/{id}", Auth::Admin, "updateWebhook", 200)
    },
    Route {
        summary: "Delete a webhook, with what waits for it",
        ..route(Method::Delete, "/api/v1/webhooks/{id}", Auth::Admin, "deleteWebhook", 204)
    },
    Route {
        summary: "Show a webhook's address, and the names of its headers",
        response: json("WebhookConfig"),
        ..route(Method::Get, "/api/v1/webhooks/{id}/config", Auth::Admin, "getWebhookConfig", 200)
    },
    Route {
        summary: "Send a ping to a webhook",
        response: json("WebhookEventInfo"),
        ..route(Method::Post, "/api/v1/webhooks/{id}/ping", Auth::Admin, "pingWebhook", 200)
    },
    Route {
        summary: "List what was sent to a webhook and what waits, the newest first",
        query: LIST_WEBHOOK_EVENTS_QUERY,
        response: json("WebhookEventList"),
        ..route(Method::Get, "/api/v1/webhooks/{id}/events", Auth::Admin, "listWebhookEvents", 200)
    },
    Route {
        summary: "Send an event to a webhook once more, after all that waits",
        response: json("WebhookEventInfo"),
        ..route(
            Method::Post,
            "/api/v1/webhooks/{id}/events/{event}/redeliver",
            Auth::Admin,
            "redeliverWebhookEvent",
            200,
        )
    },
];

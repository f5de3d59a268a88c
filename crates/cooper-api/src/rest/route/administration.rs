//! Who may do what, and who does the work: tokens, agents, pools, credentials, secrets.

use super::{Auth, Method, Parameter, ParameterKind, Route, json, route};

const DELETE_POOL_QUERY: &[Parameter] = &[Parameter {
    name: "force",
    kind: ParameterKind::Flag,
    summary: "Delete it with its agents, and cancel its runs",
}];

const DELETE_SECRET_QUERY: &[Parameter] = &[Parameter {
    name: "version",
    kind: ParameterKind::Number,
    summary: "The one version to forget; all of them if absent",
}];

pub(super) const ROUTES: &[Route] = &[
    Route {
        summary: "List access tokens",
        response: json("TokenList"),
        ..route(Method::Get, "/api/v1/tokens", Auth::Admin, "listTokens", 200)
    },
    Route {
        summary: "Make an access token; it is shown once",
        request: json("CreateToken"),
        response: json("CreatedToken"),
        ..route(Method::Post, "/api/v1/tokens", Auth::Admin, "createToken", 201)
    },
    Route {
        summary: "Revoke an access token",
        ..route(Method::Delete, "/api/v1/tokens/{id}", Auth::Admin, "revokeToken", 204)
    },
    Route {
        summary: "List agents, connected or not",
        response: json("AgentList"),
        ..route(Method::Get, "/api/v1/agents", Auth::Read, "listAgents", 200)
    },
    Route {
        summary: "Show an agent",
        response: json("AgentView"),
        ..route(Method::Get, "/api/v1/agents/{id}", Auth::Read, "getAgent", 200)
    },
    Route {
        summary: "Offer an agent nothing new, or end that",
        request: json("DrainAgent"),
        response: json("AgentView"),
        ..route(Method::Post, "/api/v1/agents/{id}/drain", Auth::Admin, "drainAgent", 200)
    },
    Route {
        summary: "Forget an agent and close its stream; what it holds starts again elsewhere",
        response: json("AgentView"),
        ..route(Method::Delete, "/api/v1/agents/{id}", Auth::Admin, "removeAgent", 200)
    },
    Route {
        summary: "List pools",
        response: json("PoolList"),
        ..route(Method::Get, "/api/v1/pools", Auth::Read, "listPools", 200)
    },
    Route {
        summary: "Make a pool",
        request: json("CreatePool"),
        response: json("PoolView"),
        ..route(Method::Post, "/api/v1/pools", Auth::Admin, "createPool", 201)
    },
    Route {
        summary: "Delete a pool",
        query: DELETE_POOL_QUERY,
        response: json("PoolView"),
        ..route(Method::Delete, "/api/v1/pools/{id}", Auth::Admin, "deletePool", 200)
    },
    Route {
        summary: "List the hosts that there are credentials for",
        response: json("CredentialList"),
        ..route(Method::Get, "/api/v1/credentials", Auth::Admin, "listCredentials", 200)
    },
    Route {
        summary: "Keep a credential for a Git host, in place of its earlier one",
        request: json("SetCredential"),
        response: json("CredentialView"),
        ..route(Method::Put, "/api/v1/credentials/{host}", Auth::Admin, "setCredential", 200)
    },
    Route {
        summary: "Forget a host's credential",
        ..route(Method::Delete, "/api/v1/credentials/{host}", Auth::Admin, "deleteCredential", 204)
    },
    Route {
        summary: "List the secrets that are kept for tasks, without their values",
        response: json("SecretList"),
        ..route(Method::Get, "/api/v1/secrets", Auth::Admin, "listSecrets", 200)
    },
    Route {
        summary: "Add a version to a secret, or change whose runs may use it",
        request: json("SetSecret"),
        response: json("SecretView"),
        ..route(Method::Put, "/api/v1/secrets/{name}", Auth::Admin, "setSecret", 200)
    },
    Route {
        summary: "Forget a secret, or one version of it",
        query: DELETE_SECRET_QUERY,
        ..route(Method::Delete, "/api/v1/secrets/{name}", Auth::Admin, "deleteSecret", 204)
    },
    Route {
        summary: "Have secrets looked for as for a run of the caller's; values are not answered",
        request: json("CheckSecrets"),
        response: json("CheckedSecrets"),
        ..route(Method::Post, "/api/v1/secret-checks", Auth::Run, "checkSecrets", 200)
    },
];

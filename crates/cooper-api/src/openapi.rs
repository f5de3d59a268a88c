//! The OpenAPI document, made from the table of routes and the wire types' schemas: neither can drift from it.

mod stored_task;

use utoipa::ToSchema;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, HttpMethod, Info, License, ObjectBuilder, OpenApi, OpenApiBuilder, Paths, Ref, RefOr,
    Required, Response, ResponseBuilder, Schema, SchemaFormat, Type,
};

use crate::problem::{PROBLEM_MEDIA_TYPE, Problem};
use crate::rest;

pub use stored_task::stored_task_schema;

const BEARER: &str = "bearer";
const BASIC: &str = "basic";

/// The document of the whole REST API.
pub fn document() -> OpenApi {
    let mut paths = Paths::new();
    for route in rest::ROUTES {
        paths.add_path_operation(route.path, vec![http_method(route.method)], operation(route));
    }
    let mut info = Info::new("Cooperage", env!("CARGO_PKG_VERSION"));
    info.description = Some("Builds container images. Errors are RFC 9457 problem documents with a `code`.".to_owned());
    let mut license = License::new("Apache-2.0");
    license.identifier = Some("Apache-2.0".to_owned());
    info.license = Some(license);
    let mut schemas = Vec::new();
    add::<Problem>(&mut schemas);
    add::<rest::CreatedContext>(&mut schemas);
    add::<rest::UploadedContext>(&mut schemas);
    add::<rest::RunRequest>(&mut schemas);
    add::<rest::Run>(&mut schemas);
    add::<rest::RunList>(&mut schemas);
    add::<rest::RerunRequest>(&mut schemas);
    add::<rest::Lockfile>(&mut schemas);
    add::<rest::UpdateRun>(&mut schemas);
    add::<rest::TaskSettings>(&mut schemas);
    add::<rest::TaskView>(&mut schemas);
    add::<rest::TaskList>(&mut schemas);
    add::<rest::TaskRunRequest>(&mut schemas);
    add::<rest::TimerList>(&mut schemas);
    add::<rest::RefusalList>(&mut schemas);
    add::<rest::WaveList>(&mut schemas);
    add::<rest::WaveView>(&mut schemas);
    add::<rest::ImpactView>(&mut schemas);
    add::<rest::RegistryHookView>(&mut schemas);
    add::<rest::SetTaskCredential>(&mut schemas);
    add::<rest::HookList>(&mut schemas);
    add::<rest::HookView>(&mut schemas);
    add::<rest::DeliveryAnswer>(&mut schemas);
    add::<rest::LogBatch>(&mut schemas);
    add::<rest::PackedLog>(&mut schemas);
    add::<rest::VertexUpdate>(&mut schemas);
    add::<rest::StatusEvent>(&mut schemas);
    add::<rest::CreateToken>(&mut schemas);
    add::<rest::CreatedToken>(&mut schemas);
    add::<rest::TokenList>(&mut schemas);
    add::<rest::AgentList>(&mut schemas);
    add::<rest::AgentView>(&mut schemas);
    add::<rest::DrainAgent>(&mut schemas);
    add::<rest::PoolList>(&mut schemas);
    add::<rest::PoolView>(&mut schemas);
    add::<rest::CreatePool>(&mut schemas);
    add::<rest::SetCredential>(&mut schemas);
    add::<rest::CredentialView>(&mut schemas);
    add::<rest::CredentialList>(&mut schemas);
    add::<rest::SetSecret>(&mut schemas);
    add::<rest::SecretView>(&mut schemas);
    add::<rest::SecretList>(&mut schemas);
    add::<rest::CheckSecrets>(&mut schemas);
    add::<rest::CheckedSecrets>(&mut schemas);
    add::<rest::UpdateTriggerSecret>(&mut schemas);
    add::<rest::WebhookSettings>(&mut schemas);
    add::<rest::WebhookView>(&mut schemas);
    add::<rest::WebhookList>(&mut schemas);
    add::<rest::WebhookConfig>(&mut schemas);
    add::<rest::WebhookEventInfo>(&mut schemas);
    add::<rest::NotificationInfo>(&mut schemas);
    add::<rest::WebhookEventList>(&mut schemas);
    add::<rest::NotificationList>(&mut schemas);
    add::<rest::Info>(&mut schemas);
    add::<rest::Health>(&mut schemas);
    let components = ComponentsBuilder::new()
        .security_scheme(BEARER, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
        .security_scheme(BASIC, SecurityScheme::Http(Http::new(HttpAuthScheme::Basic)))
        .schemas_from_iter(schemas)
        .build();
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components)).build()
}

/// The document as pretty JSON with a newline at its end: the form that is checked in.
pub fn document_json() -> String {
    let mut text = serde_json::to_string_pretty(&document()).expect("the document holds strings and numbers only");
    text.push('\n');
    text
}

/// Adds a type's schema, and those of the types in it.
fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

fn http_method(method: rest::Method) -> HttpMethod {
    match method {
        rest::Method::Get => HttpMethod::Get,
        rest::Method::Post => HttpMethod::Post,
        rest::Method::Put => HttpMethod::Put,
        rest::Method::Patch => HttpMethod::Patch,
        rest::Method::Delete => HttpMethod::Delete,
    }
}

fn operation(route: &rest::Route) -> OperationBuilder {
    let mut operation = OperationBuilder::new().operation_id(Some(route.operation)).summary(Some(route.summary));
    let path_parameters = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    for name in path_parameters {
        operation = operation.parameter(parameter(name, ParameterIn::Path, Required::True, text()));
    }
    for query in route.query {
        let schema = match query.kind {
            rest::ParameterKind::Number => number(),
            rest::ParameterKind::Text => text(),
            rest::ParameterKind::Flag => flag(),
            rest::ParameterKind::Schema(name) => RefOr::Ref(Ref::from_schema_name(name)),
        };
        let mut parameter = parameter(query.name, ParameterIn::Query, Required::False, schema);
        parameter.description = Some(query.summary.to_owned());
        operation = operation.parameter(parameter);
    }
    if matches!(route.operation, "createRun" | "rerunRun" | "runTask") {
        let key = parameter(rest::IDEMPOTENCY_KEY_HEADER, ParameterIn::Header, Required::False, text());
        operation = operation.parameter(key);
    }
    if let Some(body) = &route.request {
        let body = RequestBodyBuilder::new().content(body.media_type, content(body)).required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    let mut success = ResponseBuilder::new().description(route.summary);
    if let Some(body) = &route.response {
        success = success.content(body.media_type, content(body));
    }
    operation = operation.response(route.status.to_string(), success.build());
    operation = operation.response("default", problem());
    if route.auth != rest::Auth::Public {
        let scopes: Vec<&str> = route.auth.scope().into_iter().collect();
        for scheme in [BEARER, BASIC] {
            operation = operation.security(SecurityRequirement::new(scheme, scopes.iter().copied()));
        }
    }
    operation
}

fn parameter(name: &str, place: ParameterIn, required: Required, schema: RefOr<Schema>) -> Parameter {
    ParameterBuilder::new().name(name).parameter_in(place).required(required).schema(Some(schema)).build()
}

fn text() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).into()
}

fn flag() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(SchemaType::new(Type::Boolean)).into()
}

fn number() -> RefOr<Schema> {
    let number = ObjectBuilder::new().schema_type(SchemaType::new(Type::Integer)).minimum(Some(0));
    number.format(Some(SchemaFormat::Custom("int64".to_owned()))).into()
}

fn content(body: &rest::Content) -> Content {
    match body.schema {
        Some(name) => Content::new(Some(Ref::from_schema_name(name))),
        None => Content::new(None::<RefOr<Schema>>),
    }
}

fn problem() -> Response {
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    ResponseBuilder::new().description("A problem").content(PROBLEM_MEDIA_TYPE, content).build()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str() {
                        Some(text) if name == "$ref" => found.push(text),
                        _ => references(value, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_route_is_described_and_every_reference_resolves() {
        let document: Value = serde_json::from_str(&document_json()).expect("json");
        let operations: usize =
            document["paths"].as_object().expect("paths").values().map(|p| p.as_object().expect("path").len()).sum();
        assert_eq!(operations, rest::ROUTES.len());
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 30, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("local reference");
            assert!(document.pointer(pointer).is_some(), "{reference} does not resolve");
        }
    }

    #[test]
    fn schemas_have_the_wire_names() {
        let document: Value = serde_json::from_str(&document_json()).expect("json");
        let schemas = &document["components"]["schemas"];
        assert!(schemas["Run"]["properties"]["runId"].is_object(), "{}", schemas["Run"]);
        assert!(schemas["Dependency"]["properties"]["runtime-dependency"].is_object(), "{}", schemas["Dependency"]);
        let create = document["paths"]["/api/v1/runs"]["post"].to_string();
        assert!(create.contains("Idempotency-Key") || create.contains("idempotency-key"), "{create}");
        assert_eq!(document["paths"]["/api/v1/openapi.json"]["get"].get("security"), None);
    }
}

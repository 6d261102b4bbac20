//! The API's own description: `OpenAPI` 3.1 at `/openapi.json`, pages that need no network at `/docs`.

use axum::Json;
use axum::Router;
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa::ToSchema as _;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder, Schema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::events::Lagged;
use super::problem::{self, ProblemDetails};
use super::watch::Current;
use crate::datapath_view::EventView;
use crate::inputs::trace::TraceEnd;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Hub",
        description = "Personas: network segments with a policy and an end. Personalities: what an interface is \
                       configured with, and switched to. The same routes are below /v1."
    ),
    components(schemas(ProblemDetails, EventView, Lagged, TraceEnd, Current)),
    servers((url = "/v1"), (url = "/"))
)]
struct Description;

/// Adds what all routes have in common: the title, and the body of every refusal.
pub(super) fn described<S>(routes: OpenApiRouter<S>) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let mut routes = OpenApiRouter::with_openapi(Description::openapi()).merge(routes);
    for item in routes.get_openapi_mut().paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        operations.into_iter().flatten().for_each(describe_refusals);
    }
    routes
}

fn describe_refusals(operation: &mut Operation) {
    let content = || {
        let schema: RefOr<Schema> = Ref::from_schema_name(ProblemDetails::name()).into();
        ContentBuilder::new().schema(Some(schema)).build()
    };
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && (status.starts_with('4') || status.starts_with('5'))
        {
            response.content.insert(problem::MEDIA_TYPE.to_owned(), content().into());
        }
    }
    let default = ResponseBuilder::new()
        .description("any other refusal")
        .content(problem::MEDIA_TYPE, content())
        .build();
    operation.responses.responses.insert("default".to_owned(), default.into());
}

/// The route of the description.
pub(super) fn description(description: OpenApi) -> Router {
    Router::new().route("/openapi.json", get(|| async move { Json(description) }))
}

/// The pages, all their parts from this program.
pub(super) fn pages() -> Router {
    SwaggerUi::new("/docs").config(Config::from("/openapi.json")).into()
}

//! Which endpoint a request means.

use cella_kbs_client::wire::{ATTEST_PATH, AUTH_PATH, RESOURCE_PATH, ResourcePath};
use http::Method;

use crate::appraisal::MAX_ATTESTATION;
use crate::refusal::Refusal;
use crate::storage::MAX_RESOURCE;

/// Path below which rules lie; followed by `/<repo>/<type>/<tag>`.
const RULE_PATH: &str = "/kbs/v0/cella-rule";
/// Path of the list of resources.
const LIST_PATH: &str = "/kbs/v0/cella-resources";

/// An endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Health,
    Auth,
    Attest,
    Release(ResourcePath),
    StoreResource(ResourcePath),
    DeleteResource(ResourcePath),
    ShowRule(ResourcePath),
    StoreRule(ResourcePath),
    DeleteRule(ResourcePath),
    List,
}

impl Route {
    /// Finds the endpoint. `path` is the request's path as it came, without its query.
    pub(super) fn find(method: &Method, path: &str) -> Result<Self, Refusal> {
        let below = |prefix| path.strip_prefix(prefix).and_then(|rest: &str| rest.strip_prefix('/'));
        let only = |wanted: Method, route| {
            if *method == wanted {
                Ok(route)
            } else {
                Err(Refusal::Method)
            }
        };
        if let Some(name) = below(RESOURCE_PATH) {
            let path = name.parse()?;
            return match *method {
                Method::GET => Ok(Self::Release(path)),
                Method::POST => Ok(Self::StoreResource(path)),
                Method::DELETE => Ok(Self::DeleteResource(path)),
                _ => Err(Refusal::Method),
            };
        }
        if let Some(name) = below(RULE_PATH) {
            let path = name.parse()?;
            return match *method {
                Method::GET => Ok(Self::ShowRule(path)),
                Method::POST => Ok(Self::StoreRule(path)),
                Method::DELETE => Ok(Self::DeleteRule(path)),
                _ => Err(Refusal::Method),
            };
        }
        match path {
            AUTH_PATH => only(Method::POST, Self::Auth),
            ATTEST_PATH => only(Method::POST, Self::Attest),
            LIST_PATH => only(Method::GET, Self::List),
            "/healthz" => only(Method::GET, Self::Health),
            _ => Err(Refusal::NoEndpoint),
        }
    }

    /// Whether only admins may.
    pub(super) fn is_admin(&self) -> bool {
        match self {
            Self::Health | Self::Auth | Self::Attest | Self::Release(_) => false,
            Self::StoreResource(_)
            | Self::DeleteResource(_)
            | Self::ShowRule(_)
            | Self::StoreRule(_)
            | Self::DeleteRule(_)
            | Self::List => true,
        }
    }

    /// How long a body it reads; 0: a body is not looked at.
    pub(super) fn max_body(&self) -> usize {
        match self {
            Self::Attest => MAX_ATTESTATION,
            Self::Auth | Self::StoreRule(_) => 64 * 1024,
            Self::StoreResource(_) => MAX_RESOURCE,
            Self::Health
            | Self::Release(_)
            | Self::DeleteResource(_)
            | Self::ShowRule(_)
            | Self::DeleteRule(_)
            | Self::List => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: Method, path: &str) -> Result<Route, String> {
        Route::find(&method, path).map_err(|refusal| format!("{refusal:?}"))
    }

    #[test]
    fn endpoints() {
        let path: ResourcePath = "a/b/c".parse().unwrap();
        for (method, at, route) in [
            (Method::GET, "/healthz", Route::Health),
            (Method::POST, "/kbs/v0/auth", Route::Auth),
            (Method::POST, "/kbs/v0/attest", Route::Attest),
            (Method::GET, "/kbs/v0/resource/a/b/c", Route::Release(path.clone())),
            (
                Method::POST,
                "/kbs/v0/resource/a/b/c",
                Route::StoreResource(path.clone()),
            ),
            (
                Method::DELETE,
                "/kbs/v0/resource/a/b/c",
                Route::DeleteResource(path.clone()),
            ),
            (Method::GET, "/kbs/v0/cella-rule/a/b/c", Route::ShowRule(path.clone())),
            (Method::POST, "/kbs/v0/cella-rule/a/b/c", Route::StoreRule(path.clone())),
            (Method::DELETE, "/kbs/v0/cella-rule/a/b/c", Route::DeleteRule(path)),
            (Method::GET, "/kbs/v0/cella-resources", Route::List),
        ] {
            assert_eq!(find(method, at), Ok(route));
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for path in [
            "/",
            "",
            "*",
            "/kbs/v0/resource",
            "/kbs/v0/resourcex/a/b/c",
            "/kbs/v0/attestation-policy",
            "/metrics",
        ] {
            assert_eq!(find(Method::GET, path), Err("NoEndpoint".to_owned()), "{path}");
        }
        for path in [
            "/kbs/v0/resource/",
            "/kbs/v0/resource/a/b",
            "/kbs/v0/cella-rule/a/../c",
            "/kbs/v0/resource/a/b/%63",
        ] {
            assert!(
                find(Method::GET, path).unwrap_err().starts_with("ResourceName"),
                "{path}"
            );
        }
        for (method, path) in [
            (Method::GET, "/kbs/v0/auth"),
            (Method::PUT, "/kbs/v0/attest"),
            (Method::PUT, "/kbs/v0/resource/a/b/c"),
            (Method::HEAD, "/kbs/v0/resource/a/b/c"),
            (Method::PATCH, "/kbs/v0/cella-rule/a/b/c"),
            (Method::DELETE, "/kbs/v0/cella-resources"),
        ] {
            assert_eq!(find(method, path), Err("Method".to_owned()), "{path}");
        }
    }

    #[test]
    fn what_changes_or_shows_the_store_is_for_admins() {
        for (method, path, admin) in [
            (Method::GET, "/kbs/v0/resource/a/b/c", false),
            (Method::POST, "/kbs/v0/resource/a/b/c", true),
            (Method::DELETE, "/kbs/v0/resource/a/b/c", true),
            (Method::GET, "/kbs/v0/cella-rule/a/b/c", true),
            (Method::GET, "/kbs/v0/cella-resources", true),
        ] {
            assert_eq!(find(method, path).unwrap().is_admin(), admin, "{path}");
        }
    }
}

//! Which endpoint a request means.

use cella_attest::reference::MAX_DOCUMENT;
use cella_kbs_client::wire::{ATTEST_PATH, AUTH_PATH, RESOURCE_PATH, ResourcePath};
use http::Method;

use crate::appraisal::MAX_ATTESTATION;
use crate::refusal::Refusal;
use crate::storage::{FloorName, MAX_BACKUP, MAX_RESOURCE};

/// Path below which rules lie; followed by `/<repo>/<type>/<tag>`.
const RULE_PATH: &str = "/kbs/v0/cella-rule";
/// Path below which floors lie; followed by `/<kind>/<name>`.
const FLOOR_PATH: &str = "/kbs/v0/cella-floor";
/// Path below which owners lie; followed by `/<repo>/<type>/<tag>`.
const OWNERS_PATH: &str = "/kbs/v0/cella-owners";
/// Path below which approvals lie; followed by `/<repo>/<type>/<tag>`.
const APPROVAL_PATH: &str = "/kbs/v0/cella-approval";
/// Path that takes reference values.
const REFERENCE_PATH: &str = "/kbs/v0/cella-reference";
/// Path of the list of reference values.
const REFERENCES_PATH: &str = "/kbs/v0/cella-references";
/// Path of a backup.
const BACKUP_PATH: &str = "/kbs/v0/cella-backup";
/// Path that takes a backup back.
const RESTORE_PATH: &str = "/kbs/v0/cella-restore";
/// Path of the audit log.
const AUDIT_PATH: &str = "/kbs/v0/cella-audit";
/// Path of the keys that verify tokens.
const JWKS_PATH: &str = "/kbs/v0/cella-jwks";
/// Path that asks for another key for tokens.
const TOKEN_KEY_PATH: &str = "/kbs/v0/cella-token-key";
/// Path of the list of floors.
const FLOORS_PATH: &str = "/kbs/v0/cella-floors";
/// Path of the list of resources.
const LIST_PATH: &str = "/kbs/v0/cella-resources";

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Health,
    Metrics,
    Auth,
    Attest,
    Release(ResourcePath),
    StoreResource(ResourcePath, Option<u64>),
    DeleteResource(ResourcePath),
    ShowRule(ResourcePath),
    StoreRule(ResourcePath, Option<u64>),
    DeleteRule(ResourcePath),
    List,
    RaiseFloor(FloorName, u64),
    Floors,
    ShowOwners(ResourcePath),
    StoreOwners(ResourcePath),
    Approve(ResourcePath),
    Jwks,
    RotateTokenKey,
    ImportReference,
    References,
    Audit(u64),
    Backup,
    Restore,
}

impl Route {
    /// Finds the endpoint. `path` is the request's path as it came, without its query. Of queries only `version=<number>`
    /// has a meaning, where something is stored.
    pub(super) fn find(method: &Method, path: &str, query: Option<&str>) -> Result<Self, Refusal> {
        let below = |prefix| path.strip_prefix(prefix).and_then(|rest: &str| rest.strip_prefix('/'));
        let only = |wanted: Method, route| only(method, wanted, route);
        if let Some(name) = below(RESOURCE_PATH) {
            let path = name.parse()?;
            return match *method {
                Method::GET => Ok(Self::Release(path)),
                Method::POST => Ok(Self::StoreResource(path, version(query)?)),
                Method::DELETE => Ok(Self::DeleteResource(path)),
                _ => Err(Refusal::Method),
            };
        }
        if let Some(name) = below(RULE_PATH) {
            let path = name.parse()?;
            return match *method {
                Method::GET => Ok(Self::ShowRule(path)),
                Method::POST => Ok(Self::StoreRule(path, version(query)?)),
                Method::DELETE => Ok(Self::DeleteRule(path)),
                _ => Err(Refusal::Method),
            };
        }
        if let Some(name) = below(OWNERS_PATH) {
            let path = name.parse()?;
            return match *method {
                Method::GET => Ok(Self::ShowOwners(path)),
                Method::POST => Ok(Self::StoreOwners(path)),
                _ => Err(Refusal::Method),
            };
        }
        if let Some(name) = below(APPROVAL_PATH) {
            return only(Method::POST, Self::Approve(name.parse()?));
        }
        if let Some(name) = below(FLOOR_PATH) {
            let floor = Self::RaiseFloor(name.parse()?, version(query)?.ok_or(Refusal::Version)?);
            return only(Method::POST, floor);
        }
        match path {
            AUTH_PATH => only(Method::POST, Self::Auth),
            ATTEST_PATH => only(Method::POST, Self::Attest),
            LIST_PATH => only(Method::GET, Self::List),
            BACKUP_PATH => only(Method::GET, Self::Backup),
            RESTORE_PATH => only(Method::POST, Self::Restore),
            AUDIT_PATH => only(Method::GET, Self::Audit(number(query, "from")?.unwrap_or(0))),
            JWKS_PATH => only(Method::GET, Self::Jwks),
            TOKEN_KEY_PATH => only(Method::POST, Self::RotateTokenKey),
            FLOORS_PATH => only(Method::GET, Self::Floors),
            REFERENCE_PATH => only(Method::POST, Self::ImportReference),
            REFERENCES_PATH => only(Method::GET, Self::References),
            "/metrics" => only(Method::GET, Self::Metrics),
            "/healthz" => only(Method::GET, Self::Health),
            _ => Err(Refusal::NoEndpoint),
        }
    }

    /// Whether only admins may.
    pub(super) fn is_admin(&self) -> bool {
        match self {
            // An approval is signed by an owner, who need be no admin.
            Self::Health
            | Self::Metrics
            | Self::Auth
            | Self::Attest
            | Self::Release(_)
            | Self::Approve(_)
            | Self::Jwks => false,
            Self::StoreResource(..)
            | Self::DeleteResource(_)
            | Self::ShowRule(_)
            | Self::StoreRule(..)
            | Self::DeleteRule(_)
            | Self::List
            | Self::RaiseFloor(..)
            | Self::Floors
            | Self::ShowOwners(_)
            | Self::StoreOwners(_)
            | Self::RotateTokenKey
            | Self::ImportReference
            | Self::References
            | Self::Audit(_)
            | Self::Backup
            | Self::Restore => true,
        }
    }

    /// How long a body it reads; 0: a body is not looked at.
    pub(super) fn max_body(&self) -> usize {
        match self {
            Self::Attest => MAX_ATTESTATION,
            Self::Auth | Self::StoreRule(..) | Self::StoreOwners(_) | Self::Approve(_) => 64 * 1024,
            Self::StoreResource(..) => MAX_RESOURCE,
            Self::Restore => MAX_BACKUP,
            Self::ImportReference => MAX_DOCUMENT,
            Self::Health
            | Self::Metrics
            | Self::Release(_)
            | Self::DeleteResource(_)
            | Self::ShowRule(_)
            | Self::DeleteRule(_)
            | Self::List
            | Self::RaiseFloor(..)
            | Self::Floors
            | Self::ShowOwners(_)
            | Self::Jwks
            | Self::RotateTokenKey
            | Self::References
            | Self::Audit(_)
            | Self::Backup => 0,
        }
    }
}

fn only(method: &Method, wanted: Method, route: Route) -> Result<Route, Refusal> {
    if *method == wanted {
        Ok(route)
    } else {
        Err(Refusal::Method)
    }
}

/// The version in `version=<number>`, from 1; nothing for no query.
fn version(query: Option<&str>) -> Result<Option<u64>, Refusal> {
    match number(query, "version")? {
        Some(0) => Err(Refusal::Version),
        version => Ok(version),
    }
}

/// The number in `<name>=<number>`; nothing for no query.
fn number(query: Option<&str>, name: &str) -> Result<Option<u64>, Refusal> {
    let number = |query: &str| {
        let digits = query.strip_prefix(name)?.strip_prefix('=')?;
        let decimal = digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|_| decimal)
    };
    query.map(|query| number(query).ok_or(Refusal::Version)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: Method, path: &str) -> Result<Route, String> {
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(path, query)| (path, Some(query)));
        Route::find(&method, path, query).map_err(|refusal| format!("{refusal:?}"))
    }

    #[test]
    fn endpoints() {
        let path: ResourcePath = "a/b/c".parse().unwrap();
        for (method, at, route) in [
            (Method::GET, "/healthz", Route::Health),
            (Method::GET, "/metrics", Route::Metrics),
            (Method::POST, "/kbs/v0/auth", Route::Auth),
            (Method::POST, "/kbs/v0/attest", Route::Attest),
            (Method::GET, "/kbs/v0/resource/a/b/c", Route::Release(path.clone())),
            (
                Method::POST,
                "/kbs/v0/resource/a/b/c",
                Route::StoreResource(path.clone(), None),
            ),
            (
                Method::DELETE,
                "/kbs/v0/resource/a/b/c",
                Route::DeleteResource(path.clone()),
            ),
            (Method::GET, "/kbs/v0/cella-rule/a/b/c", Route::ShowRule(path.clone())),
            (
                Method::POST,
                "/kbs/v0/cella-rule/a/b/c?version=7",
                Route::StoreRule(path.clone(), Some(7)),
            ),
            (
                Method::POST,
                "/kbs/v0/cella-floor/model/models/demo?version=2",
                Route::RaiseFloor("model/models/demo".parse().unwrap(), 2),
            ),
            (Method::GET, "/kbs/v0/cella-floors", Route::Floors),
            (Method::POST, "/kbs/v0/cella-reference", Route::ImportReference),
            (Method::GET, "/kbs/v0/cella-references", Route::References),
            (
                Method::GET,
                "/kbs/v0/cella-owners/a/b/c",
                Route::ShowOwners(path.clone()),
            ),
            (
                Method::POST,
                "/kbs/v0/cella-owners/a/b/c",
                Route::StoreOwners(path.clone()),
            ),
            (
                Method::POST,
                "/kbs/v0/cella-approval/a/b/c",
                Route::Approve(path.clone()),
            ),
            (Method::GET, "/kbs/v0/resource/a/b/c?x=y", Route::Release(path.clone())),
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
            "/metrics/",
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
        for query in [
            "",
            "version=",
            "version=0",
            "version=+1",
            "version=1&version=2",
            "v=1",
            "version=99999999999999999999",
        ] {
            let path = format!("/kbs/v0/resource/a/b/c?{query}");
            assert_eq!(find(Method::POST, &path), Err("Version".to_owned()), "{query}");
        }
        for (path, error) in [
            ("/kbs/v0/cella-floor/model/models/demo", "Version"),
            ("/kbs/v0/cella-floor/resource/a?version=1", "FloorName(FloorNameError)"),
            ("/kbs/v0/cella-floor/other/a?version=1", "FloorName(FloorNameError)"),
            ("/kbs/v0/cella-floor/model/../x?version=1", "FloorName(FloorNameError)"),
        ] {
            assert_eq!(find(Method::POST, path), Err(error.to_owned()), "{path}");
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
            (Method::GET, "/kbs/v0/cella-floors", true),
            (Method::POST, "/kbs/v0/cella-reference", true),
            (Method::GET, "/kbs/v0/cella-references", true),
            (Method::POST, "/kbs/v0/cella-floor/model/demo?version=1", true),
            (Method::POST, "/kbs/v0/cella-token-key", true),
            (Method::GET, "/kbs/v0/cella-backup", true),
            (Method::POST, "/kbs/v0/cella-restore", true),
            (Method::GET, "/kbs/v0/cella-audit?from=7", true),
            (Method::GET, "/kbs/v0/cella-jwks", false),
            (Method::GET, "/kbs/v0/cella-owners/a/b/c", true),
            (Method::POST, "/kbs/v0/cella-owners/a/b/c", true),
            (Method::POST, "/kbs/v0/cella-approval/a/b/c", false),
        ] {
            assert_eq!(find(method, path).unwrap().is_admin(), admin, "{path}");
        }
    }
}

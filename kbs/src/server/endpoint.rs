//! One request and its answer: HTTP on the outside, [`Broker`] on the inside.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cella_kbs_client::wire::SESSION_COOKIE;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde_json::json;
use slog::{Logger, error, info};

use super::metrics::Gauges;
use super::route::Route;
use super::sources::Place;
use super::{Shared, body};
use crate::admin::Admin;
use crate::broker::{Broker, Credentials, InSession};
use crate::refusal::Refusal;
use crate::storage::{FloorName, Listed};

/// A successful answer.
struct Answer {
    body: Vec<u8>,
    /// Its media type.
    kind: &'static str,
    cookie: Option<String>,
}

const JSON: &str = "application/json";

/// Answers a request. Every request gets a correlation id, which a refusal shows and the log repeats.
pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    place: &Place,
    log: Logger,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let started = shared.clock.uptime();
    let reference = reference();
    let log = log.new(slog::o!("ref" => reference.clone()));
    let method = request.method().clone();
    let route = Route::find(request.method(), request.uri().path(), request.uri().query());
    let kind = route.as_ref().ok().cloned();
    let limited = !place.request(started);
    let answer = match route {
        _ if limited => Err(Refusal::TooFast),
        Ok(route) => handle(&shared, route, request, &reference).await,
        Err(refusal) => Err(refusal),
    };
    let response = match answer {
        Ok(answer) => respond(StatusCode::OK, answer),
        Err(refusal) => {
            let (status, information) = refusal.answer(&reference);
            if status.is_server_error() {
                // The cause chain stays here; the peer gets the class.
                let cause = chain(&refusal);
                error!(log, "request failed"; "method" => %method, "error" => cause);
            } else {
                let kind = information.name().to_owned();
                info!(log, "request refused"; "method" => %method, "kind" => kind, "cause" => %refusal);
            }
            let answer = Answer {
                body: serde_json::to_vec(&information).unwrap_or_default(),
                kind: JSON,
                cookie: None,
            };
            respond(status, answer)
        }
    };
    let took = shared.clock.uptime().saturating_sub(started);
    shared.metrics.count(kind.as_ref(), response.status(), limited, took);
    Ok(response)
}

async fn handle(shared: &Shared, route: Route, request: Request<Incoming>, reference: &str) -> Result<Answer, Refusal> {
    if route == Route::Metrics {
        let (waiting_sessions, attested_sessions) = shared.broker.sessions();
        let gauges = Gauges {
            waiting_sessions,
            attested_sessions,
            audit_lines: shared.broker.audit_lines(),
        };
        return Ok(Answer {
            body: shared.metrics.text(&gauges).into_bytes(),
            kind: "text/plain; version=0.0.4",
            cookie: None,
        });
    }
    let credentials = credentials(request.headers());
    // Before the body is read: whoever is no admin does not get to send one.
    let admin = route
        .is_admin()
        .then(|| shared.broker.authenticate(&credentials))
        .transpose()?;
    let body = body::read(request.into_body(), route.max_body(), shared.deadlines.body).await?;
    let (broker, reference) = (shared.broker.clone(), reference.to_owned());
    let work = move || act(&broker, route, &credentials, admin.as_ref(), &body, &reference);
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Refusal::Internal))
}

/// What the endpoint does. Blocks.
fn act(
    broker: &Broker,
    route: Route,
    credentials: &Credentials,
    admin: Option<&Admin>,
    body: &[u8],
    reference: &str,
) -> Result<Answer, Refusal> {
    let admin = || admin.ok_or(Refusal::Admin(crate::admin::AdminError::Missing));
    match route {
        Route::Health | Route::Metrics => Ok(Answer {
            body: Vec::new(),
            kind: JSON,
            cookie: None,
        }),
        Route::Auth => in_session(broker.challenge(body)?),
        Route::Attest => in_session(broker.attest(credentials, body, reference)?),
        Route::Release(path) => json(&broker.release(credentials, &path, reference)?),
        Route::StoreResource(path, offered) => {
            stored(broker.store_resource(admin()?, &path, offered, body, reference)?)
        }
        Route::DeleteResource(path) => done(broker.delete_resource(admin()?, &path, reference)),
        Route::StoreRule(path, offered) => stored(broker.store_rule(admin()?, &path, offered, body, reference)?),
        Route::DeleteRule(path) => done(broker.delete_rule(admin()?, &path, reference)),
        Route::ShowRule(path) => admin().and_then(|_| json(&broker.rule(&path)?)),
        Route::List => {
            admin()?;
            let resources: Vec<_> = broker.list()?.into_iter().map(line).collect();
            json(&json!({ "resources": resources }))
        }
        Route::ShowOwners(path) => admin().and_then(|_| json(&broker.ownership(&path)?)),
        Route::StoreOwners(path) => {
            let generation = broker.store_owners(admin()?, &path, body, reference)?;
            json(&json!({ "generation": generation }))
        }
        Route::Audit(from) => {
            admin()?;
            Ok(Answer {
                body: broker.audit_page(from)?,
                kind: "application/jsonl",
                cookie: None,
            })
        }
        Route::Backup => Ok(Answer {
            body: broker.backup(admin()?, reference)?,
            kind: "application/octet-stream",
            cookie: None,
        }),
        Route::Restore => {
            let (made, values) = broker.restore(admin()?, body, reference)?;
            json(&json!({"made": made, "values": values}))
        }
        Route::Jwks => json(&broker.jwks()?),
        Route::RotateTokenKey => {
            let (id, activates) = broker.rotate_token_key(admin()?, reference)?;
            json(&json!({"kid": id, "activates": activates}))
        }
        Route::ImportReference => json(&broker.import_reference(admin()?, body, reference)?),
        Route::References => {
            admin()?;
            json(&json!({ "references": broker.references()? }))
        }
        Route::Approve(path) => done(broker.approve(&path, body, reference)),
        Route::RaiseFloor(name, to) => done(broker.raise_floor(admin()?, &name, to, reference)),
        Route::Floors => {
            admin()?;
            let floor = |(name, least): (FloorName, u64)| json!({"name": name.to_string(), "floor": least});
            let floors: Vec<_> = broker.floors()?.into_iter().map(floor).collect();
            json(&json!({ "floors": floors }))
        }
    }
}

/// Members that do not apply are `null`.
fn line(listed: Listed) -> serde_json::Value {
    let (version, bytes) = listed.resource.unzip();
    let (rule_version, rule) = listed.rule.unzip();
    json!({"path": listed.path, "version": version, "bytes": bytes, "rule": rule, "rule-version": rule_version})
}

fn stored(version: u64) -> Result<Answer, Refusal> {
    json(&json!({ "version": version }))
}

fn done(result: Result<(), Refusal>) -> Result<Answer, Refusal> {
    result.and_then(|()| json(&json!({})))
}

fn in_session<T: Serialize>(answer: InSession<T>) -> Result<Answer, Refusal> {
    let expires = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(answer.expires.as_secs()));
    let value = answer.session.cookie();
    let cookie = format!("{SESSION_COOKIE}={value}; Expires={expires}; Path=/kbs/v0; Secure; HttpOnly");
    Ok(Answer {
        cookie: Some(cookie),
        ..json(&answer.answer)?
    })
}

fn json(body: &impl Serialize) -> Result<Answer, Refusal> {
    let body = serde_json::to_vec(body).map_err(|_| Refusal::Internal)?;
    Ok(Answer {
        body,
        kind: JSON,
        cookie: None,
    })
}

fn respond(status: StatusCode, answer: Answer) -> Response<Full<Bytes>> {
    let Answer { body, kind, cookie } = answer;
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(Ok(mut cookie)) = cookie.map(HeaderValue::try_from) {
        cookie.set_sensitive(true);
        headers.insert(SET_COOKIE, cookie);
    }
    response
}

/// The session cookie and the bearer token. A header that is there twice, or is not ASCII, counts as absent.
fn credentials(headers: &HeaderMap) -> Credentials {
    let single = |name| {
        let mut values = headers.get_all(name).iter();
        values
            .next()
            .filter(|_| values.next().is_none())
            .and_then(|value| value.to_str().ok())
    };
    let cookie = single(COOKIE).and_then(|text| {
        let pairs = text.split(';').filter_map(|pair| pair.trim().split_once('='));
        let mut ours = pairs
            .filter(|(name, _)| *name == SESSION_COOKIE)
            .map(|(_, value)| value.to_owned());
        ours.next().filter(|_| ours.next().is_none())
    });
    let bearer = single(AUTHORIZATION).and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim().to_owned())
    });
    Credentials { cookie, bearer }
}

fn reference() -> String {
    let mut bytes = [0; 8];
    // Without randomness requests cannot be told apart in the log; everything that needs it more fails by itself.
    SystemRandom::new().fill(&mut bytes).unwrap_or(());
    hex::encode(bytes)
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(http::HeaderName, &str)]) -> (Option<String>, Option<String>) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        let Credentials { cookie, bearer } = credentials(&headers);
        (cookie, bearer)
    }

    #[test]
    fn credentials_are_unambiguous() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of(&[]), (None, None));
        assert_eq!(
            of(&[(COOKIE, "a=b; kbs-session-id=12;c=d"), (AUTHORIZATION, "bearer  t")]),
            (some("12"), some("t"))
        );
        assert_eq!(of(&[(COOKIE, "kbs-session-id=1; kbs-session-id=2")]), (None, None));
        assert_eq!(
            of(&[(COOKIE, "kbs-session-id=1"), (COOKIE, "kbs-session-id=2")]),
            (None, None)
        );
        assert_eq!(
            of(&[(COOKIE, "xkbs-session-id=1"), (AUTHORIZATION, "Basic t")]),
            (None, None)
        );
        assert_eq!(
            of(&[(AUTHORIZATION, "Bearer a"), (AUTHORIZATION, "Bearer b")]),
            (None, None)
        );
    }
}

//! Numbers to watch, as Prometheus reads them. Counts and times only: no names, no digests, nothing about one guest.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use super::route::Route;

/// Upper ends of the buckets, in microseconds; the last one has none.
const BUCKETS: [(u64, &str); 9] = [
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (500_000, "0.5"),
    (2_500_000, "2.5"),
];
const ENDPOINTS: [&str; 5] = ["auth", "attest", "resource", "admin", "other"];
const OUTCOMES: [&str; 4] = ["ok", "refused", "failed", "limited"];

/// All numbers since the start.
#[derive(Default)]
pub(super) struct Metrics {
    endpoints: [Endpoint; ENDPOINTS.len()],
}

#[derive(Default)]
struct Endpoint {
    outcomes: [AtomicU64; OUTCOMES.len()],
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

/// What is as it is now.
pub(super) struct Gauges {
    pub(super) waiting_sessions: usize,
    pub(super) attested_sessions: usize,
    pub(super) audit_lines: u64,
}

impl Metrics {
    /// One request more. `route` is `None` where the path is none.
    pub(super) fn count(&self, route: Option<&Route>, status: StatusCode, limited: bool, took: Duration) {
        let endpoint = match route {
            Some(Route::Auth) => 0,
            Some(Route::Attest) => 1,
            Some(Route::Release(_)) => 2,
            Some(route) if route.is_admin() => 3,
            _ => 4,
        };
        let outcome = match status {
            _ if limited => 3,
            status if status.is_success() => 0,
            status if status.is_server_error() => 2,
            _ => 1,
        };
        let Some(endpoint) = self.endpoints.get(endpoint) else {
            return;
        };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS
            .iter()
            .position(|(end, _)| micros <= *end)
            .unwrap_or(BUCKETS.len());
        let add = |counter: Option<&AtomicU64>, n| {
            if let Some(counter) = counter {
                counter.fetch_add(n, Ordering::Relaxed);
            }
        };
        add(endpoint.outcomes.get(outcome), 1);
        add(endpoint.buckets.get(bucket), 1);
        add(Some(&endpoint.micros), micros);
    }

    /// Prometheus' text form, version 0.0.4.
    pub(super) fn text(&self, gauges: &Gauges) -> String {
        let mut out = String::with_capacity(8192);
        // Writing to a string cannot fail.
        let _ = self.write(&mut out, gauges);
        out
    }

    fn write(&self, out: &mut String, gauges: &Gauges) -> std::fmt::Result {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        writeln!(out, "# HELP cella_kbs_build_info The running version.")?;
        writeln!(out, "# TYPE cella_kbs_build_info gauge")?;
        writeln!(
            out,
            "cella_kbs_build_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        )?;
        writeln!(out, "# HELP cella_kbs_requests_total Requests answered.")?;
        writeln!(out, "# TYPE cella_kbs_requests_total counter")?;
        for (name, endpoint) in ENDPOINTS.iter().zip(&self.endpoints) {
            for (outcome, counter) in OUTCOMES.iter().zip(&endpoint.outcomes) {
                let count = load(counter);
                writeln!(
                    out,
                    "cella_kbs_requests_total{{endpoint=\"{name}\",outcome=\"{outcome}\"}} {count}"
                )?;
            }
        }
        writeln!(
            out,
            "# HELP cella_kbs_request_seconds Time to answer, the body's arrival included."
        )?;
        writeln!(out, "# TYPE cella_kbs_request_seconds histogram")?;
        for (name, endpoint) in ENDPOINTS.iter().zip(&self.endpoints) {
            let mut below = 0;
            let ends = BUCKETS.iter().map(|(_, end)| *end).chain(["+Inf"]);
            for (end, counter) in ends.zip(&endpoint.buckets) {
                below += load(counter);
                writeln!(
                    out,
                    "cella_kbs_request_seconds_bucket{{endpoint=\"{name}\",le=\"{end}\"}} {below}"
                )?;
            }
            let micros = load(&endpoint.micros);
            let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
            writeln!(
                out,
                "cella_kbs_request_seconds_sum{{endpoint=\"{name}\"}} {seconds}.{rest:06}"
            )?;
            writeln!(out, "cella_kbs_request_seconds_count{{endpoint=\"{name}\"}} {below}")?;
        }
        writeln!(out, "# HELP cella_kbs_sessions Sessions of guests.")?;
        writeln!(out, "# TYPE cella_kbs_sessions gauge")?;
        writeln!(
            out,
            "cella_kbs_sessions{{state=\"waiting\"}} {}",
            gauges.waiting_sessions
        )?;
        writeln!(
            out,
            "cella_kbs_sessions{{state=\"attested\"}} {}",
            gauges.attested_sessions
        )?;
        writeln!(out, "# HELP cella_kbs_audit_lines_total Lines of the audit log.")?;
        writeln!(out, "# TYPE cella_kbs_audit_lines_total counter")?;
        writeln!(out, "cella_kbs_audit_lines_total {}", gauges.audit_lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let metrics = Metrics::default();
        for micros in [0, 1_000, 1_001, 9_000_000] {
            metrics.count(
                Some(&Route::Attest),
                StatusCode::OK,
                false,
                Duration::from_micros(micros),
            );
        }
        metrics.count(Some(&Route::Attest), StatusCode::UNAUTHORIZED, false, Duration::ZERO);
        metrics.count(None, StatusCode::SERVICE_UNAVAILABLE, true, Duration::ZERO);
        let text = metrics.text(&Gauges {
            waiting_sessions: 3,
            attested_sessions: 2,
            audit_lines: 1,
        });
        for line in [
            r#"cella_kbs_requests_total{endpoint="attest",outcome="ok"} 4"#,
            r#"cella_kbs_requests_total{endpoint="attest",outcome="refused"} 1"#,
            r#"cella_kbs_requests_total{endpoint="other",outcome="limited"} 1"#,
            r#"cella_kbs_request_seconds_bucket{endpoint="attest",le="0.001"} 3"#,
            r#"cella_kbs_request_seconds_bucket{endpoint="attest",le="0.0025"} 4"#,
            r#"cella_kbs_request_seconds_bucket{endpoint="attest",le="+Inf"} 5"#,
            r#"cella_kbs_request_seconds_count{endpoint="attest"} 5"#,
            r#"cella_kbs_request_seconds_sum{endpoint="attest"} 9.002001"#,
            r#"cella_kbs_sessions{state="waiting"} 3"#,
            "cella_kbs_audit_lines_total 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}

//! A trace as a picture (SVG), for a document: one row a lane, the critical path outlined.

use super::chrome::{GUEST, HOST, Placed, Trace};
use crate::terminal::escaped;

/// Which spans the last end waited for: walking back from it, at each moment the span that ended last before. Steps of the host in which
/// others lie are no part of it, since what they waited for is.
pub(super) fn critical(spans: &[Placed<'_>]) -> Vec<bool> {
    let holds_others = |outer: &Placed<'_>| {
        let within = |inner: &Placed<'_>| {
            inner.start_us >= outer.start_us && inner.end_us() <= outer.end_us() && inner.length_us < outer.length_us
        };
        outer.process == HOST && spans.iter().any(within)
    };
    let mut candidates: Vec<(usize, &Placed<'_>)> = spans.iter().enumerate().collect();
    candidates.retain(|(_, span)| span.length_us > 0 && !holds_others(span));
    let mut marked = vec![false; spans.len()];
    let mut now = candidates.iter().map(|(_, span)| span.end_us()).max().unwrap_or(0);
    loop {
        let before = candidates
            .iter()
            .filter(|(_, span)| span.end_us() <= now && span.start_us < now);
        let Some((index, span)) = before.max_by_key(|(_, span)| (span.end_us(), span.length_us)) else {
            return marked;
        };
        if let Some(mark) = marked.get_mut(*index) {
            *mark = true;
        }
        now = span.start_us;
    }
}

/// The picture.
pub(super) fn render(trace: &Trace) -> String {
    let spans = trace.placed();
    let critical = critical(&spans);
    let total = spans.iter().map(Placed::end_us).max().unwrap_or(0).max(1);
    let mut rows: Vec<(u32, usize)> = spans.iter().map(|span| (span.process, span.lane)).collect();
    rows.sort_unstable();
    rows.dedup();
    let row = |span: &Placed<'_>| {
        rows.iter()
            .position(|row| *row == (span.process, span.lane))
            .unwrap_or(0)
    };
    let x = |us: i64| LEFT + i64::try_from(i128::from(WIDTH) * i128::from(us) / i128::from(total)).unwrap_or(WIDTH);
    let top = |row: usize| TOP + HEIGHT * i64::try_from(row).unwrap_or(0);
    let bottom = top(rows.len());

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{w}\" height=\"{h}\" fill=\"#fff\"/>\n",
        w = LEFT + WIDTH + RIGHT,
        h = bottom + TOP,
    );
    let step = step(total);
    for tick in (0..=total / step).map(|tick| tick.saturating_mul(step)) {
        let (at, seconds) = (x(tick), tick_label(tick));
        svg.push_str(&format!(
            "<path d=\"M{at} {TOP}V{bottom}\" stroke=\"#ddd\"/><text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{seconds} s</text>\n",
            bottom + 16
        ));
    }
    for (process, name) in [(HOST, "host"), (GUEST, "guest")] {
        if let Some(first) = rows.iter().position(|(of, _)| *of == process) {
            svg.push_str(&format!(
                "<text x=\"4\" y=\"{}\" font-weight=\"bold\">{name}</text>\n",
                top(first) + 15
            ));
        }
    }
    for (span, critical) in spans.iter().zip(&critical) {
        let (left, right, top) = (x(span.start_us), x(span.end_us()), top(row(span)));
        let fill = match (span.process, span.span.failure.is_empty()) {
            (_, false) => "#d9705f",
            (HOST, _) => "#a9c7dd",
            _ => "#f0c38e",
        };
        let outline = if *critical {
            " stroke=\"#222\" stroke-width=\"2\""
        } else {
            ""
        };
        let label = escaped(&span.span.name, MAX_LABEL);
        let whole = format!(
            "{label} {}: {} s",
            escaped(&span.span.subject, MAX_SUBJECT),
            tick_label(span.length_us)
        );
        svg.push_str(&format!(
            "<rect x=\"{left}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"2\" fill=\"{fill}\"{outline}><title>{}</title></rect>\n",
            top + 2,
            (right - left).max(2),
            HEIGHT - 4,
            xml(&whole)
        ));
        // Where the name does not fit it stands behind, and the picture's edge cuts it off at worst.
        let fits = (right - left) > 7 * i64::try_from(label.chars().count()).unwrap_or(i64::MAX / 8);
        let at = if fits { left + 4 } else { right + 4 };
        let free = fits
            || !spans
                .iter()
                .any(|other| row(other) == row(span) && other.start_us >= span.end_us() && x(other.start_us) < at + 60);
        if free {
            svg.push_str(&format!("<text x=\"{at}\" y=\"{}\">{}</text>\n", top + 15, xml(&label)));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// A distance of ticks of which there are at most ten.
fn step(total_us: i64) -> i64 {
    let mut decade: i64 = 1000;
    loop {
        for step in [1, 2, 5].map(|factor| decade.saturating_mul(factor)) {
            if total_us / step <= 10 {
                return step;
            }
        }
        decade = decade.saturating_mul(10);
    }
}

/// Seconds, as short as they can be.
fn tick_label(us: i64) -> String {
    let text = format!("{}.{:03}", us / 1_000_000, us / 1000 % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const LEFT: i64 = 50;
const WIDTH: i64 = 880;
const RIGHT: i64 = 110;
const TOP: i64 = 24;
const HEIGHT: i64 = 24;
const MAX_LABEL: usize = 24;
const MAX_SUBJECT: usize = 80;

#[cfg(test)]
mod tests {
    use super::super::chrome::tests::{span, trace};
    use super::*;

    #[test]
    fn the_path_is_what_the_end_waited_for() {
        let host = vec![span("create", 0, 3_000_000), span("guest-boot", 1_000_000, 2_900_000)];
        // The guest's zero is 3 s of the host's clock.
        let guest = vec![
            span("attest", 0, 200),
            span("keys", 200, 300),
            span("image", 0, 900),
            span("start", 900, 1000),
        ];
        let trace = trace(host, guest);
        let spans = trace.placed();
        let path: Vec<_> = spans.iter().zip(critical(&spans)).filter(|(_, is)| *is).collect();
        let names: Vec<_> = path.iter().map(|(placed, _)| placed.span.name.as_str()).collect();
        assert_eq!(names, ["guest-boot", "image", "start"]);
    }

    #[test]
    fn the_picture_is_xml_whatever_a_guest_calls_its_stages() {
        let mut bad = span("<script>&\"", 0, 10);
        bad.subject = "</svg>\u{1b}".to_owned();
        let svg = render(&trace(vec![span("qemu", 0, 10)], vec![bad]));
        assert!(!svg.contains("<script") && !svg.contains('\u{1b}'), "{svg}");
        assert_eq!(svg.matches("</svg>").count(), 1);
        assert_eq!(svg.matches("<rect").count(), 3);
        assert!(render(&trace(Vec::new(), Vec::new())).ends_with("</svg>\n"));
    }

    #[test]
    fn ticks_are_few() {
        for total in [1, 999, 12_345, 8_000_000, 61_000_000, i64::MAX] {
            assert!(total / step(total) <= 10, "{total}");
        }
        assert_eq!(step(8_000_000), 1_000_000);
        assert_eq!(tick_label(2_500_000), "2.5");
    }
}

//! The difference between two texts, as people know it from `diff -u`.

use std::fmt::Write as _;

use super::Change;

/// All changes, each with its path.
pub(super) fn of(changes: &[Change]) -> String {
    let mut out = String::new();
    for change in changes {
        let name = |text: &Option<String>| match text {
            Some(_) => change.path.display().to_string(),
            None => "/dev/null".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "--- {}\n+++ {}", name(&change.from), name(&change.to));
        unified(
            &mut out,
            change.from.as_deref().unwrap_or(""),
            change.to.as_deref().unwrap_or(""),
        );
    }
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Old(&'a str),
    New(&'a str),
}

fn unified(out: &mut String, from: &str, to: &str) {
    let lines = compared(&from.lines().collect::<Vec<_>>(), &to.lines().collect::<Vec<_>>());
    let near = |index: usize| {
        let first = index.saturating_sub(CONTEXT);
        let around = lines.iter().skip(first).take(index - first + CONTEXT + 1);
        around.into_iter().any(|line| !matches!(line, Line::Same(_)))
    };
    let (mut old, mut new, mut index) = (1, 1, 0);
    while let Some(line) = lines.get(index) {
        if !near(index) {
            (old, new, index) = after(*line, old, new, index);
            continue;
        }
        let hunk = (index..lines.len()).take_while(|index| near(*index)).count();
        let body = || lines.iter().skip(index).take(hunk);
        let olds = body().filter(|line| !matches!(line, Line::New(_))).count();
        let news = body().filter(|line| !matches!(line, Line::Old(_))).count();
        let _ = writeln!(out, "@@ -{old},{olds} +{new},{news} @@");
        for line in body() {
            let (sign, text) = match line {
                Line::Same(text) => (' ', text),
                Line::Old(text) => ('-', text),
                Line::New(text) => ('+', text),
            };
            let _ = writeln!(out, "{sign}{}", crate::terminal::escaped_line(text.as_bytes()));
        }
        (old, new, index) = (old + olds, new + news, index + hunk);
    }
}

fn after(line: Line<'_>, old: usize, new: usize, index: usize) -> (usize, usize, usize) {
    match line {
        Line::Same(_) => (old + 1, new + 1, index + 1),
        Line::Old(_) => (old + 1, new, index + 1),
        Line::New(_) => (old, new + 1, index + 1),
    }
}

/// The longest common subsequence decides what is the same. What is alike at both ends is set aside first; a middle that is too
/// large for the table is shown as replaced.
fn compared<'a>(from: &[&'a str], to: &[&'a str]) -> Vec<Line<'a>> {
    let head = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let (from_rest, to_rest) = (from.get(head..).unwrap_or_default(), to.get(head..).unwrap_or_default());
    let tail = from_rest
        .iter()
        .rev()
        .zip(to_rest.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let old = from_rest.get(..from_rest.len() - tail).unwrap_or_default();
    let new = to_rest.get(..to_rest.len() - tail).unwrap_or_default();
    let mut lines: Vec<_> = from.iter().take(head).map(|line| Line::Same(line)).collect();
    if old.len().saturating_mul(new.len()) > MAX_TABLE {
        lines.extend(old.iter().map(|line| Line::Old(line)));
        lines.extend(new.iter().map(|line| Line::New(line)));
    } else {
        lines.extend(subsequence(old, new));
    }
    lines.extend(from.iter().skip(from.len() - tail).map(|line| Line::Same(line)));
    lines
}

fn subsequence<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let width = new.len() + 1;
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    let at = |lengths: &[u32], row: usize, column: usize| lengths.get(row * width + column).copied().unwrap_or(0);
    for (row, a) in old.iter().enumerate().rev() {
        for (column, b) in new.iter().enumerate().rev() {
            let longest = if a == b {
                at(&lengths, row + 1, column + 1) + 1
            } else {
                at(&lengths, row + 1, column).max(at(&lengths, row, column + 1))
            };
            if let Some(cell) = lengths.get_mut(row * width + column) {
                *cell = longest;
            }
        }
    }
    let (mut row, mut column, mut lines) = (0, 0, Vec::with_capacity(old.len() + new.len()));
    loop {
        match (old.get(row), new.get(column)) {
            (None, None) => return lines,
            (Some(a), Some(b)) if a == b => {
                lines.push(Line::Same(a));
                (row, column) = (row + 1, column + 1);
            }
            (Some(a), b) if b.is_none() || at(&lengths, row + 1, column) >= at(&lengths, row, column + 1) => {
                lines.push(Line::Old(a));
                row += 1;
            }
            (_, Some(b)) => {
                lines.push(Line::New(b));
                column += 1;
            }
            (Some(_), None) => return lines,
        }
    }
}

/// Lines around a change that are shown.
const CONTEXT: usize = 3;
/// Cells of the table, 4 bytes each.
const MAX_TABLE: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(from: &str, to: &str) -> String {
        let mut out = String::new();
        unified(&mut out, from, to);
        out
    }

    #[test]
    fn changes_have_three_lines_around_them() {
        let from = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n15\n";
        let to = from.replace("2\n3", "2\nx\n3").replacen("14\n", "", 1);
        let expected = "@@ -1,5 +1,6 @@\n 1\n 2\n+x\n 3\n 4\n 5\n@@ -11,5 +12,4 @@\n 11\n 12\n 13\n-14\n 15\n";
        assert_eq!(diff(from, &to), expected);
        assert_eq!(diff(from, from), "");
    }

    #[test]
    fn whole_files_come_and_go() {
        assert_eq!(diff("", "a\nb\n"), "@@ -1,0 +1,2 @@\n+a\n+b\n");
        assert_eq!(diff("a\n", ""), "@@ -1,1 +1,0 @@\n-a\n");
        assert_eq!(diff("a\nc\nb", "b\nc\nd"), "@@ -1,3 +1,3 @@\n-a\n-c\n b\n+c\n+d\n");
    }
}

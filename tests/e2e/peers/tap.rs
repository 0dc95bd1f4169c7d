//! The reports of the programs, in the Test Anything Protocol: `ok 1 - name`, `not ok 2 - name: why`, and the plan `1..2`
//! at the end, without which nobody knows whether cases are missing.

use std::fmt::Write;

/// Complains of every case that failed, of a missing plan, and of an empty one.
pub(crate) fn judge(report: &str) -> Result<usize, String> {
    let mut passed = 0;
    let mut complaints = String::new();
    let mut plan = None;
    for line in report.lines() {
        if line.starts_with("ok ") {
            passed += 1;
        } else if let Some(count) = line.strip_prefix("1..") {
            plan = count.parse().ok();
        } else if line.starts_with("not ok ") {
            writeln!(complaints, "{line}").unwrap();
        }
    }
    match plan {
        None => complaints.push_str("the report has no plan: the program did not reach its end\n"),
        Some(0) => complaints.push_str("no case ran\n"),
        Some(planned) if complaints.is_empty() && planned != passed => {
            writeln!(complaints, "{planned} cases were planned, {passed} passed").unwrap();
        }
        Some(_) => {}
    }
    if complaints.is_empty() {
        Ok(passed)
    } else {
        Err(complaints)
    }
}

#[test]
fn report_with_all_cases_passes() {
    assert_eq!(judge("ok 1 - a\nnoise\nok 2 - b\n1..2\n"), Ok(2));
}

#[test]
fn failed_missing_and_unfinished_cases_are_told() {
    for (report, complaint) in [
        ("ok 1 - a\nnot ok 2 - b: why\n1..2\n", "not ok 2 - b: why"),
        ("ok 1 - a\n1..2\n", "2 cases were planned, 1 passed"),
        ("ok 1 - a\n", "no plan"),
        ("1..0\n", "no case ran"),
        ("", "no plan"),
    ] {
        assert!(judge(report).unwrap_err().contains(complaint), "{report}");
    }
}

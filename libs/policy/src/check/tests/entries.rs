//! Which entry of the policy is meant: by name, and by image.

use super::*;

/// The example with a second container of the same image that runs something else.
fn two() -> String {
    let container = &EXAMPLE[EXAMPLE.find("[[container]]").unwrap()..EXAMPLE.find("[[model]]").unwrap()];
    let second = container
        .replace("\"server\"", "\"second\"")
        .replace("\"-m\"", "\"-n\"");
    format!("{EXAMPLE}\n{second}")
}

fn other_image() -> Vec<String> {
    vec![format!("localhost:5000/demo/llama-server@sha256:{}", "12".repeat(32))]
}

#[test]
fn t1_two_containers_of_one_image_are_told_apart_by_what_they_run() {
    let container = &EXAMPLE[EXAMPLE.find("[[container]]").unwrap()..EXAMPLE.find("[[model]]").unwrap()];
    let second = container
        .replace("\"server\"", "\"second\"")
        .replace("\"-m\"", "\"-n\"");
    let policy = Policy::parse(&format!("{EXAMPLE}\n{second}")).unwrap();
    let mut other = request();
    assert_eq!(check_container(&policy, &other).unwrap().policy.name, "server");
    other.process.args[1] = "-n".to_owned();
    assert_eq!(check_container(&policy, &other).unwrap().policy.name, "second");
    other.process.args[1] = "-o".to_owned();
    assert!(matches!(check_container(&policy, &other), Err(Denial::Argument { subject, .. }) if subject == server()));
}

#[test]
fn t1_a_named_container_runs_its_own_image_whatever_the_host_has_found() {
    let policy = policy();
    for images in [other_image(), vec![], strings(&["junk"])] {
        let admission = admitted(&policy, |r| {
            r.name = name();
            r.images = images;
        });
        assert_eq!(admission.policy.name, "server");
        assert!(!admission.image_offered, "worth a warning");
    }
    assert!(admitted(&policy, |r| r.name = name()).image_offered);
}

#[test]
fn t1_a_name_is_not_passed_over_for_an_entry_that_fits_better() {
    let policy = Policy::parse(&two()).unwrap();
    let second = denied_by(&policy, |r| r.name = "second".to_owned());
    assert!(matches!(second, Denial::Argument { subject: Subject::Container(name), .. } if name == "second"));
}

#[test]
fn t1_unknown_names_choose_by_image_only_where_an_entry_says_so() {
    let named = Policy::parse(&two()).unwrap();
    assert!(matches!(
        denied_by(&named, |r| r.name = "container-for-x".to_owned()),
        Denial::UnknownContainer { .. }
    ));
    let text = two().replace("name = \"second\"", "name = \"second\"\nmatch = \"image\"");
    let policy = Policy::parse(&text).unwrap();
    let second = admitted(&policy, |r| {
        r.name = "container-for-x".to_owned();
        r.process.args[1] = "-n".to_owned();
    });
    assert_eq!(second.policy.name, "second");
    assert!(
        matches!(
            denied_by(&policy, |r| r.name = "container-for-x".to_owned()),
            Denial::Argument { subject: Subject::Container(name), .. } if name == "second"
        ),
        "the first entry would fit, and may be had by its name alone"
    );
    assert!(matches!(
        denied_by(&policy, |r| {
            r.name = "container-for-x".to_owned();
            r.images = other_image();
        }),
        Denial::UnknownImage { .. }
    ));
    assert_eq!(admitted(&policy, |r| r.name = name()).policy.name, "server");
    assert_eq!(
        admitted(&policy, |_| {}).policy.name,
        "server",
        "without a name every entry may be meant"
    );
}

//! Names there and back again.
use super::*;

fn user(uid: u32, gid: u32, additional_gids: &[u32]) -> oci::User {
    oci::User {
        uid,
        gid,
        additional_gids: additional_gids.to_vec(),
    }
}

/// A root with the standard names and `www`, `staff2`.
fn root() -> (tempfile::TempDir, Vec<String>, Names) {
    let mut names = Names::standard();
    assert!(names.learn("www:staff2"));
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(root.path().join("etc/passwd"), names.passwd()).unwrap();
    std::fs::write(root.path().join("etc/group"), names.group()).unwrap();
    let roots = vec![root.path().to_str().unwrap().to_owned()];
    (root, roots, names)
}

/// The number of a name, as containerd finds it.
fn number(file: &str, name: &str) -> (u32, u32) {
    let line = file.lines().find(|line| line.split(':').next() == Some(name)).unwrap();
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap_or(0));
    (fields.next().unwrap(), fields.next().unwrap_or(0))
}

#[test]
fn a_name_goes_through_containerd_as_a_number_and_comes_out_as_itself() {
    let (_root, roots, names) = root();
    let (www, own) = number(&names.passwd(), "www");
    let (staff, _) = number(&names.group(), "staff2");
    assert!(www < i32::MAX.unsigned_abs() && staff < i32::MAX.unsigned_abs());
    for (given, expected) in [
        (user(www, own, &[own]), "www"),
        (user(www, staff, &[staff]), "www:staff2"),
        (user(www, 100, &[100]), "www:100"),
        (user(1000, staff, &[staff]), "1000:staff2"),
    ] {
        let translated = translate(&given, &roots).unwrap();
        assert_eq!(translated.name, expected);
        assert!(translated.additional_gids.is_empty());
        assert_ne!((translated.uid, translated.gid), (0, 0), "never root by mistake");
    }
    let groups = translate(&user(www, own, &[own, 7, 8]), &roots).unwrap();
    assert_eq!(groups.additional_gids, [7, 8], "numbers of the pod stay");
}

#[test]
fn numbers_are_not_touched_and_nothing_is_read_for_them() {
    let plain = translate(&user(1000, 2000, &[2000, 3]), &[]).unwrap();
    assert_eq!((plain.uid, plain.gid, plain.name.as_str()), (1000, 2000, ""));
    assert_eq!(plain.additional_gids, [2000, 3]);
    let (_root, _, names) = root();
    assert_eq!(
        (number(&names.passwd(), "root"), number(&names.group(), "root").0),
        ((0, 0), 0)
    );
}

#[test]
fn a_number_without_a_name_is_refused() {
    let (_root, roots, names) = root();
    let (www, own) = number(&names.passwd(), "www");
    assert!(matches!(
        translate(&user(www + 1, own, &[]), &roots),
        Err(UserError::Unknown { .. })
    ));
    assert!(matches!(
        translate(&user(www, own, &[]), &[]),
        Err(UserError::Read { .. })
    ));
    let (staff, _) = number(&names.group(), "staff2");
    match translate(&user(www, own, &[staff]), &roots) {
        Err(UserError::SupplementaryName { name }) => assert_eq!(name, "staff2"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_are_only_added_and_keep_their_numbers() {
    let mut names = Names::standard();
    let before = names.passwd();
    assert!(names.learn("zoe"));
    assert!(names.passwd().starts_with(&before));
    for known in [
        "zoe",
        "nobody",
        "root",
        "root:root",
        "1000",
        "1000:1000",
        "",
        ":",
        "-x",
        "a b",
        "a\nb",
        "a/b",
    ] {
        assert!(!names.learn(known), "{known:?}");
    }
    assert!(!names.learn(&"x".repeat(65)));
    assert!(names.learn("1000:zgroup"));
    assert_eq!(Names::parse(&names.passwd(), &names.group()).unwrap(), names);
    let mut old = Names::default();
    old.learn("zoe");
    assert!(old.merge(&Names::standard()));
    assert!(old.passwd().starts_with(&format!("{ROOT_USER}zoe:x:{USERS}:")));
    assert!(!old.merge(&Names::standard()));
    for number in 0..2 * MAX_NAMES {
        names.learn(&format!("u{number}"));
    }
    assert_eq!(names.users.len(), MAX_NAMES);
    assert!(u64::try_from(names.passwd().len()).unwrap() < MAX_FILE);
}

#[test]
fn damaged_files_are_not_guessed_at() {
    let names = Names::standard();
    let (passwd, group) = (names.passwd(), names.group());
    let swapped = passwd
        .replacen("daemon", "nobody2", 1)
        .replacen(":x:2095054849:", ":x:2095054850:", 1);
    for bad in [
        "",
        "root:x:0:0::/root:\nx",
        swapped.as_str(),
        &passwd[..passwd.len() - 1],
    ] {
        assert!(Names::parse(bad, &group).is_err());
    }
    let twice = format!("{group}daemon:x:1:\n");
    assert_eq!(Names::parse(&passwd, &twice).unwrap_err().file, "group");
}

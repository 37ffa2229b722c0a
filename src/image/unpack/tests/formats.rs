//! The formats of archives: long names, records, holes, and what breaks them.

use super::*;

#[test]
fn long_names_are_read_in_each_format() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let [folder, file] = [
        format!("755 0:0 {}/", "d".repeat(120)),
        format!("644 0:0 {long} = 1"),
    ];
    let expected = [folder.as_str(), file.as_str()];
    let gnu = Head {
        path: b"././@LongLink",
        kind: b'L',
        ..Head::default()
    };
    check(
        Tar::default()
            .entry(&gnu, format!("{long}\0").as_bytes())
            .file("short", b"1"),
        &expected,
    );
    check(
        Tar::default()
            .pax(&[("path", long.as_bytes())])
            .file("short", b"1"),
        &expected,
    );
    let target = "t".repeat(300);
    let gnu = Head {
        path: b"././@LongLink",
        kind: b'K',
        ..Head::default()
    };
    let link = format!("0:0 s -> {target}");
    check(
        Tar::default()
            .entry(&gnu, target.as_bytes())
            .symlink("s", "short"),
        &[&link],
    );
    check(
        Tar::default()
            .pax(&[("linkpath", target.as_bytes())])
            .symlink("s", "short"),
        &[&link],
    );
    let mut ustar = tar::Header::new_ustar();
    let fields = ustar.as_ustar_mut().expect("ustar");
    fields.prefix[..4].copy_from_slice(b"pre1");
    fields.name[..4].copy_from_slice(b"name");
    ustar.set_mode(0o600);
    ustar.set_size(0);
    ustar.set_uid(0);
    ustar.set_gid(0);
    ustar.set_mtime(0);
    check(
        Tar::default().raw(&mut ustar, b""),
        &["755 0:0 pre1/", "600 0:0 pre1/name = "],
    );
    refused(
        Tar::default()
            .file("x", b"")
            .pax(&[("path", &[b'n'; 300])])
            .file("short", b""),
        "cannot make the file `nnn",
    );
}

#[test]
fn records_override_fields_and_never_shift_the_archive() {
    let small = Head {
        path: b"x",
        ..Head::default()
    };
    // A size in the record counts, one in front of a folder does not.
    check(
        Tar::default()
            .pax(&[("size", b"3"), ("uid", b"7"), ("mtime", b"5.5")])
            .entry(&small, b"abc")
            .file("y", b"1"),
        &["644 7:0 x = abc", "644 0:0 y = 1"],
    );
    check(
        Tar::default()
            .pax(&[("size", b"512")])
            .folder("d", 0o755)
            .file("y", b"1"),
        &["755 0:0 d/", "644 0:0 y = 1"],
    );
    refused(
        Tar::default()
            .pax(&[("size", b"99999999999999999999")])
            .file("x", b""),
        "the archive has a broken header at byte 0",
    );
    refused(
        Tar::default()
            .pax(&[("size", b"9223372036854775807")])
            .file("x", b""),
        "the archive has a broken header at byte 1024: its size",
    );
}

#[test]
fn files_with_holes_are_read_in_each_format() {
    let hole = [b"head".as_slice(), &[0; 96], b"tail"].concat();
    let content = String::from_utf8_lossy(&hole).into_owned();
    let line = format!("644 0:0 s = {} bytes", hole.len());
    let sparse = |records: &[(&str, &[u8])], content: &[u8]| {
        let records = [
            &[
                ("GNU.sparse.name", b"s".as_slice()),
                ("GNU.sparse.realsize", b"104"),
            ],
            records,
        ]
        .concat();
        Tar::default()
            .pax(&records)
            .file("GNUSparseFile.0/s", content)
            .file("t", b"1")
    };
    let mut map = b"2\n0\n4\n100\n4\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"headtail");
    let archives = [
        sparse(
            &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")],
            &map,
        ),
        sparse(&[("GNU.sparse.map", b"0,4,100,4")], b"headtail"),
        sparse(
            &[
                ("GNU.sparse.offset", b"0"),
                ("GNU.sparse.numbytes", b"4"),
                ("GNU.sparse.offset", b"100"),
                ("GNU.sparse.numbytes", b"4"),
            ],
            b"headtail",
        ),
        old_gnu_sparse(),
    ];
    for archive in archives {
        check(archive.clone(), &[&line, "644 0:0 t = 1"]);
        unpacked(&archive.end(), |_, root| {
            let found = fs::read(&root.join("s")).unwrap_or_default();
            assert_eq!(String::from_utf8_lossy(&found), content);
        });
    }
    refused(
        sparse(&[("GNU.sparse.map", b"0,4,2,4")], b"headtail"),
        "the archive has a broken header",
    );
    refused(
        sparse(&[("GNU.sparse.map", b"0,4,101,4")], b"headtail"),
        "the archive has a broken header",
    );
    refused(
        sparse(&[("GNU.sparse.map", b"0,4,100,9")], b"headtail"),
        "the archive has a broken header",
    );
    refused(
        sparse(&[("GNU.sparse.major", b"1")], b"99999999999\n"),
        "the archive has a broken header",
    );
}

fn old_gnu_sparse() -> Tar {
    let mut header = tar::Header::new_gnu();
    let gnu = header.as_gnu_mut().expect("gnu");
    gnu.name[0] = b's';
    for (field, (offset, length)) in gnu.sparse.iter_mut().zip([("0", "4"), ("144", "4")]) {
        field.offset[..offset.len()].copy_from_slice(offset.as_bytes());
        field.numbytes[..length.len()].copy_from_slice(length.as_bytes());
    }
    gnu.set_real_size(104);
    header.set_entry_type(tar::EntryType::new(b'S'));
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(8);
    Tar::default().raw(&mut header, b"headtail").file("t", b"1")
}

#[test]
fn broken_archives_are_errors() {
    if !can_be_root() {
        return;
    }
    let check = |bytes: &[u8], expected: &str| {
        unpacked(bytes, |result, _| {
            let found = result.map_or_else(|e| e.to_string(), |()| "fine".into());
            assert_eq!(found, expected);
        });
    };
    let whole = Tar::default().file("x", &[b'1'; 1000]).unended();
    check(&whole, "fine");
    check(&[], "fine");
    check(&whole[..600], "the archive ends in the middle of an entry");
    check(&whole[..100], "the archive ends in the middle of an entry");
    let mut wrong = whole.clone();
    wrong[0] = b'y';
    check(
        &wrong,
        "the archive has a broken header at byte 0: its checksum is wrong",
    );
    let huge = Tar::default().entry(
        &Head {
            path: b"p",
            kind: b'x',
            ..Head::default()
        },
        &vec![0; (1 << 20) + 1],
    );
    check(
        &huge.end(),
        "the archive has a broken header at byte 0: an extended header of more than 1 MiB",
    );
    check(
        &Tar::default().file("a\n", b"").file("../a\n", b"").end(),
        "the entry `../a\\n` leaves the root filesystem",
    );
    check(
        &Tar::default().file(".", b"").end(),
        "the entry `.` replaces the root filesystem itself",
    );
}

#[test]
fn headers_of_one_entry_are_bounded_together() {
    let value = vec![b'v'; 100_000];
    let many = (0..11).fold(Tar::default(), |tar, number| {
        tar.pax(&[(&format!("SCHILY.xattr.user.{number}"), value.as_slice())])
    });
    refused(
        many.clone().file("x", b""),
        "the archive has a broken header at byte ",
    );
    // What another entry had does not count.
    let few = (0..20).fold(Tar::default(), |tar, number| {
        tar.pax(&[("comment", value.as_slice())])
            .file(&number.to_string(), b"")
    });
    unpacked(&few.end(), |result, _| result.expect("it unpacks"));
}

#[test]
fn sizes_below_zero_and_beyond_measure_are_broken() {
    let with_size = |size: [u8; 12]| {
        let mut header = tar::Header::new_gnu();
        header.set_path("x").expect("a path");
        header.set_mode(0o644);
        header.as_mut_bytes()[124..136].copy_from_slice(&size);
        Tar::default().raw(&mut header, b"")
    };
    let number = |start: u8, rest: u8| {
        let mut size = [rest; 12];
        size[0] = start;
        size
    };
    // Minus one, and more than there is, in the binary form of GNU.
    for size in [number(0xff, 0xff), number(0x80, 0xff), number(0x80, 0x7f)] {
        let tar = with_size(size);
        unpacked(&tar.end(), |result, _| {
            result.expect_err("no such size");
        });
    }
    refused(
        with_size(*b"-0000000001\0"),
        "the archive has a broken header",
    );
    let tar = Tar::default()
        .pax(&[("size", b"18446744073709551615")])
        .file("x", b"1");
    unpacked(&tar.end(), |result, _| {
        result.expect_err("no such size");
    });
}

#[test]
fn folders_that_nobody_lists_count() {
    let deep = "d/".repeat(25);
    refused(
        Tar::default().file(&format!("{deep}x"), b""),
        &format!("cannot make the folder of `{deep}x`: too many folders"),
    );
    let endless = "d/".repeat(3000);
    let tar = Tar::default()
        .pax(&[("path", format!("{endless}x").as_bytes())])
        .file("x", b"");
    refused(tar, "cannot make the folder of `d/d/");
}

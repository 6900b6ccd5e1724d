use std::{
    fs,
    hint::black_box,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use super::*;

/// Made at run time, so that the program's own text does not hold it.
#[inline(never)]
fn canary(number: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = black_box(number) ^ 0xa5 ^ u8::try_from(index * 7).unwrap();
    }
    bytes
}

/// Leaves a canary on the stack, deep below the caller.
#[inline(never)]
fn spill(number: u8, depth: usize) {
    let room = [canary(number); 64];
    if depth > 0 {
        spill(number, depth - 1);
    }
    black_box(&room);
}

fn ends() -> ! {
    // SAFETY: a constant text, and a call without arguments.
    unsafe {
        libc::write(1, b"wiped\n".as_ptr().cast(), 6);
        loop {
            libc::pause();
        }
    }
}

/// What the test below runs in a process of its own.
#[test]
#[ignore = "ends its process"]
fn planted() {
    let (to, from) = mpsc::channel();
    thread::spawn(move || {
        spill(1, 20);
        let kept = vec![canary(2); 1000];
        to.send(()).unwrap();
        loop {
            black_box(&kept);
            thread::park();
        }
    });
    from.recv().unwrap();
    drop(vec![canary(3); 300]); // freed as it is
    let held = canary(4);
    spill(5, 20);
    let found = search(std::process::id());
    println!("\nbefore {}", found.iter().filter(|count| **count > 0).count());
    black_box(&held);
    end(ends)
}

/// How often each canary stands in what a process can write.
fn search(process: u32) -> Vec<usize> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let canaries: Vec<_> = (1..=5).map(canary).collect();
    let mut counts = vec![0; canaries.len()];
    for line in maps.lines().filter(|line| line.contains(" rw-")) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(number(end) - number(start)).unwrap()];
        memory.seek(SeekFrom::Start(number(start))).unwrap();
        if memory.read_exact(&mut bytes).is_err() {
            continue; // the kernel's own
        }
        for (count, canary) in counts.iter_mut().zip(&canaries) {
            *count += bytes.windows(32).filter(|window| window == canary).count();
        }
    }
    counts
}

#[test]
fn t15_nothing_of_a_process_is_left_at_its_end() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "guest::wipe::tests::planted", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<_> = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .take_while(|line| line != "wiped")
        .collect();
    let found = search(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines.iter().any(|line| line == "before 5"), "{lines:?}");
    assert_eq!(found, [0; 5]);
}

#[test]
fn t15_what_calls_left_on_a_stack_is_zeroed() {
    let on_this_stack = || {
        let bytes = stack().unwrap();
        let mut memory = fs::File::open("/proc/self/mem").unwrap();
        let mut text = vec![0; here() - bytes.start];
        memory.seek(SeekFrom::Start(bytes.start as u64)).unwrap();
        memory.read_exact(&mut text).unwrap();
        let canary = canary(6);
        text.windows(32).filter(|window| *window == canary).count()
    };
    thread::spawn(move || {
        spill(6, 20);
        assert!(on_this_stack() > 500);
        own_stack();
        assert_eq!(on_this_stack(), 0);
    })
    .join()
    .unwrap();
}

#[test]
fn mappings_are_those_of_the_process_and_not_of_its_program() {
    let text = b"00400000-00401000 r--p 00000000 00:02 17 /init
00401000-00402000 rw-p 00001000 00:02 17 /init
00402000-00404000 rw-p 00000000 00:00 0
00404000-00405000 rw-p 00000000 00:00 0                                  [heap]
7f0000000000-7f0000200000 r--s 00000000 00:1a 12 /run/models/x
7f0000300000-7f0000301000 ---p 00000000 00:00 0
7f0000301000-7f0000500000 rw-p 00000000 00:00 0
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
7ffd00030000-7ffd00034000 r--p 00000000 00:00 0                          [vvar]
7ffd00034000-7ff";
    let found: Vec<_> = Mappings::of(text).collect();
    let of = |range, shared| Mapping { range, shared };
    assert_eq!(
        found,
        [
            of(0x40_4000..0x40_5000, false),
            of(0x7f00_0000_0000..0x7f00_0020_0000, true),
            of(0x7f00_0030_1000..0x7f00_0050_0000, false),
            of(0x7ffd_0000_0000..0x7ffd_0002_1000, false),
        ]
    );
}

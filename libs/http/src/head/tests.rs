use super::*;

const LIMIT: usize = 8192;

/// What comes of `text`, whole and byte by byte.
fn read(text: &[u8]) -> Result<Option<(Head, Vec<u8>)>, HeadError> {
    let whole = HeadReader::new(LIMIT).push(text);
    let mut reader = HeadReader::new(LIMIT);
    let mut bytewise = Ok(None);
    for (at, byte) in text.iter().enumerate() {
        bytewise = reader.push(&[*byte]);
        if let Ok(Some((_, rest))) = &mut bytewise {
            assert!(rest.is_empty());
            rest.extend_from_slice(&text[at + 1..]);
        }
        if !matches!(bytewise, Ok(None)) {
            break;
        }
    }
    assert_eq!(whole, bytewise, "{}", text.escape_ascii());
    whole
}

fn head(text: &str) -> Head {
    let (head, rest) = read(text.as_bytes()).unwrap().unwrap();
    assert!(rest.is_empty());
    head
}

#[test]
fn a_head_and_what_comes_behind_it() {
    let text = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 12\r\nContent-Range: bytes 0-11/40\r\nX: a\r\nx:  b\t\r\n\r\n\n\nbody";
    let (head, rest) = read(text).unwrap().unwrap();
    assert_eq!(rest, b"\n\nbody");
    assert_eq!(
        (head.status, head.length, head.keeps_alive),
        (StatusCode::PARTIAL_CONTENT, Some(12), true)
    );
    assert_eq!(head.headers["content-range"], "bytes 0-11/40");
    assert_eq!(head.headers.get_all("x").iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn cut_at_every_byte_there_is_no_head() {
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n";
    for end in 0..text.len() {
        assert_eq!(read(&text[..end]), Ok(None), "{end}");
    }
    assert!(read(text).unwrap().is_some());
}

#[test]
fn lines_may_end_without_a_carriage_return_and_reasons_be_absent() {
    assert_eq!(head("HTTP/1.1 200\nContent-Length: 3\n\n").length, Some(3));
    assert_eq!(head("HTTP/1.1 200 \r\nContent-Length: 3\n\r\n").length, Some(3));
}

#[test]
fn connections_are_kept_only_where_both_sides_mean_it() {
    for (text, keeps) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: y , CLOSE\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", false),
    ] {
        assert_eq!(head(text).keeps_alive, keeps, "{text}");
    }
}

#[test]
fn lengths_are_one_number_or_none() {
    for (fields, length) in [
        ("Content-Length: 18446744073709551615\r\n", Some(u64::MAX)),
        ("Content-Length: 007\r\n", Some(7)),
        ("", None),
        ("Transfer-Encoding: chunked\r\n", None),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        assert_eq!(head(&text).length, length, "{fields}");
    }
    assert_eq!(
        head("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n").length,
        Some(0)
    );
    for fields in [
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 1\r\n",
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        assert_eq!(read(text.as_bytes()), Err(HeadError::Length), "{fields}");
    }
}

#[test]
fn what_is_no_head_is_refused_as_soon_as_it_is_seen() {
    for text in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\0",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/2",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\n X: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        "HTTP/1.1 200 \x01\r\n\r\n",
    ] {
        let result = read(text.as_bytes());
        assert!(matches!(result, Err(HeadError::Syntax(_))), "{text:?}: {result:?}");
    }
    let result = read(b"HTTP/1.1 099 OK\r\n\r\n");
    assert_eq!(result, Err(HeadError::Field));
}

#[test]
fn a_head_has_an_end_and_a_hundred_headers_at_most() {
    let many = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(count));
    assert_eq!(head(&many(100)).headers.len(), 100);
    assert_eq!(
        read(many(101).as_bytes()),
        Err(HeadError::Syntax(httparse::Error::TooManyHeaders))
    );
    let long = |length: usize| format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(length - 24));
    assert!(read(long(LIMIT).as_bytes()).unwrap().is_some());
    assert_eq!(read(long(LIMIT + 1).as_bytes()), Err(HeadError::TooLarge));
    assert_eq!(
        read(&[&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; LIMIT]].concat()),
        Err(HeadError::TooLarge)
    );
    // What follows the head does not count.
    let (_, rest) = read(&[long(LIMIT).as_bytes(), &[b'\n'; 2 * LIMIT][..]].concat())
        .unwrap()
        .unwrap();
    assert_eq!(rest.len(), 2 * LIMIT);
}

#[test]
fn interim_answers_are_passed_over_and_do_not_go_on_for_ever() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(head(&(interim.repeat(8) + answer)).status, StatusCode::OK);
    let endless = interim.repeat(9) + answer;
    assert_eq!(read(endless.as_bytes()), Err(HeadError::Interim));
    let switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    assert_eq!(read(switched.as_bytes()), Err(HeadError::Interim));
}

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::*;

fn query() -> Message {
    let mut message = Message::query();
    let name = Name::from_ascii("Db.example.").unwrap();
    message.add_query(Query::query(name, RecordType::A));
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

/// The code with which these bytes are refused.
fn fault(bytes: &[u8]) -> ResponseCode {
    match read(bytes) {
        Received::Faulty(message) => {
            assert_eq!(message.metadata.id.to_be_bytes(), bytes[..2]);
            message.metadata.response_code
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_cannot_be_answered() {
    let good = bytes(&query());
    assert!(matches!(read(&good), Received::Query(_)));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    // An answer, and something that is no message.
    assert!(matches!(read(&with(2, 0x80)), Received::Noise));
    assert!(matches!(read(&good[..11]), Received::Noise));
    // Notify, Update.
    assert_eq!(fault(&with(2, 4 << 3)), ResponseCode::NotImp);
    assert_eq!(fault(&with(2, 5 << 3)), ResponseCode::NotImp);
    // No question, two of them, one that is cut off, a record that is not there.
    assert_eq!(fault(&with(5, 0)), ResponseCode::FormErr);
    assert_eq!(fault(&with(5, 2)), ResponseCode::FormErr);
    assert_eq!(fault(&good[..good.len() - 1]), ResponseCode::FormErr);
    assert_eq!(fault(&with(11, 1)), ResponseCode::FormErr);
    // A version of EDNS that nobody has.
    let mut newer = query();
    newer.edns = Some(Edns::new());
    newer.edns.as_mut().unwrap().set_version(1);
    assert_eq!(fault(&bytes(&newer)), ResponseCode::BADVERS);
}

#[test]
fn the_client_says_how_much_it_takes() {
    let room = |payload: Option<u16>| {
        let mut query = query();
        query.edns = payload.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            edns
        });
        let query = Message::from_vec(&bytes(&query)).unwrap();
        assert_eq!(Transport::Tcp.room(&query), u16::MAX);
        let reply = reply(&query);
        assert_eq!(
            reply.edns.as_ref().map(Edns::max_payload),
            payload.map(|_| DATAGRAM)
        );
        Transport::Udp.room(&query)
    };
    assert_eq!(room(None), 512);
    assert_eq!(room(Some(100)), 512);
    assert_eq!(room(Some(4096)), 4096);
    assert_eq!(room(Some(u16::MAX)), 65507);
}

#[test]
fn what_does_not_fit_is_truncated() {
    let mut query = query();
    query.set_edns(Edns::new());
    let mut message = reply(&query);
    let record = |last: u8| {
        let data = RData::A(A::new(10, 0, 0, last));
        Record::from_rdata(query.queries[0].name().clone(), 5, data)
    };
    message.add_answers((0..100).map(record));
    message.add_additional(record(200));
    let written = |room: u16| {
        let bytes = write(&message, room).unwrap();
        assert!(bytes.len() <= usize::from(room));
        Message::from_vec(&bytes).unwrap()
    };
    let whole = written(u16::MAX);
    assert!(!whole.metadata.truncation);
    assert_eq!((whole.answers.len(), whole.additionals.len()), (100, 1));
    let short = written(512);
    assert!(short.metadata.truncation && short.edns.is_some());
    // Header, question, OPT, and records of 16 bytes.
    assert_eq!(short.answers.len(), (512 - 12 - 16 - 11) / 16);
    assert_eq!(short.answers[..], whole.answers[..short.answers.len()]);
    assert!(short.additionals.is_empty());
    assert!(written(64).answers.len() == 1 && written(40).answers.is_empty());
}

#[test]
fn only_the_answer_to_a_query_is_one() {
    let query = query();
    let asked = bytes(&query);
    let check = |expected: bool, change: &dyn Fn(&mut Message)| {
        let mut answer = reply(&query);
        change(&mut answer);
        assert_eq!(answers(&bytes(&answer), &asked), expected);
    };
    let other = |name: &str, kind| Query::query(Name::from_ascii(name).unwrap(), kind);
    check(true, &|_| ());
    check(false, &|answer| answer.metadata.id ^= 1);
    check(false, &|answer| {
        answer.metadata.message_type = MessageType::Query;
    });
    for (expected, name, kind) in [
        (true, "dB.EXAMPLE.", RecordType::A),
        (false, "dc.example.", RecordType::A),
        (false, "db.example.", RecordType::AAAA),
        (false, "db.example.com.", RecordType::A),
    ] {
        check(expected, &|answer| answer.queries = vec![other(name, kind)]);
    }
    check(false, &|answer| {
        answer.queries.push(other("db.example.", RecordType::A));
    });
    // Without the question, if it was not understood.
    check(false, &|answer| answer.queries.clear());
    check(true, &|answer| {
        answer.queries.clear();
        answer.metadata.response_code = ResponseCode::FormErr;
    });
    assert!(!answers(&asked[..11], &asked) && !answers(&[], &asked));
}

proptest! {
    #[test]
    fn anything_can_come(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        check_anything(&bytes);
    }

    /// What looks like a message gets further.
    #[test]
    fn damaged_queries_can_come(at in 0_usize..40, byte in any::<u8>(), cut in 0_usize..60) {
        let mut query = query();
        query.set_edns(Edns::new());
        let mut bytes = bytes(&query);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        bytes.truncate(cut);
        check_anything(&bytes);
    }
}

/// Nothing panics, and an answer is never answered.
fn check_anything(bytes: &[u8]) {
    let is_answer = bytes.get(2).is_some_and(|flags| flags & 0x80 != 0);
    match read(bytes) {
        Received::Noise => {}
        Received::Faulty(message) => {
            assert!(!is_answer);
            assert_eq!(message.metadata.message_type, MessageType::Response);
            assert!(write(&message, 512).is_some());
        }
        Received::Query(query) => {
            assert!(!is_answer);
            assert!(write(&reply(&query), 512).is_some());
        }
    }
    answers(bytes, bytes);
    question(bytes);
}

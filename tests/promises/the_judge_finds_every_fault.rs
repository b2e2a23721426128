//! No promise but the ground of them: a judge that overlooks a fault proves nothing.

use std::collections::{BTreeMap, HashSet};

use sha2::{Digest, Sha256};

use crate::support::{Accepted, Judge, Record};

const REQUEST: &str = "7";

/// Three events of one request, as they ought to be.
fn flawless() -> (Vec<Accepted>, HashSet<String>, Vec<Record>) {
    let ids = ["a", "b", "c"];
    let accepted = ids.map(|id| Accepted {
        id: id.to_owned(),
        request: REQUEST.to_owned(),
        sha256: hex::encode(Sha256::digest(id)),
    });
    let sent = ids.into_iter().chain(["unanswered"]).map(str::to_owned).collect();
    let records = (0..).zip(ids).map(|(offset, id)| record(id, offset)).collect();
    (accepted.to_vec(), sent, records)
}

fn record(id: &str, offset: i64) -> Record {
    Record {
        topic: "t".to_owned(),
        partition: 0,
        offset,
        key: REQUEST.into(),
        headers: BTreeMap::from([("ce_id".to_owned(), id.into())]),
        value: id.into(),
    }
}

/// How many cases of each kind: lost, repeated, out of order, changed, foreign.
fn judged(change: impl FnOnce(&mut Vec<Record>)) -> [usize; 5] {
    let (accepted, sent, mut records) = flawless();
    change(&mut records);
    let Judge { lost, repeated, out_of_order, changed, foreign } = Judge::weigh(&accepted, &sent, &records);
    [lost, repeated, out_of_order, changed, foreign].map(|cases| cases.len())
}

#[test]
fn each_fault_is_found_and_nothing_else() {
    assert_eq!(judged(|_| ()), [0; 5]);
    assert_eq!(judged(|records| records.push(record("unanswered", 3))), [0; 5]);
    assert_eq!(judged(|records| drop(records.remove(1))), [1, 0, 0, 0, 0]);
    assert_eq!(judged(|records| records.push(record("a", 3))), [0, 1, 0, 0, 0]);
    assert_eq!(judged(|records| records[0].offset = 9), [0, 0, 1, 0, 0]);
    assert_eq!(judged(|records| records[2].partition = 1), [0, 0, 1, 0, 0]);
    assert_eq!(judged(|records| records[1].value.push(b' ')), [0, 0, 0, 1, 0]);
    assert_eq!(judged(|records| records[1].key = b"8".to_vec()), [0, 0, 0, 1, 0]);
    assert_eq!(judged(|records| records.push(record("nobody's", 3))), [0, 0, 0, 0, 1]);
}

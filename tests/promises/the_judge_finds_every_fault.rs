//! No promise but the ground of them: a judge that overlooks a fault proves nothing.

use std::collections::HashSet;

use crate::support::{Accepted, Exhibit, Judge};

const REQUEST: &str = "7";
/// Its partition of three, where `kcat -P -X partitioner=murmur2_random` put it.
const PARTITION: i32 = 0;
/// A request of partition 2.
const ELSEWHERE: &str = "9";

/// Three events of one request, as they ought to be.
fn flawless() -> (Vec<Accepted>, HashSet<String>, Vec<Exhibit>) {
    let ids = ["a", "b", "c"];
    let accepted = (0..).zip(ids).map(|(at, id)| Accepted {
        id: id.to_owned(),
        request: REQUEST.to_owned(),
        sha256: format!("hash of {id}"),
        sent_ns: 10 * at,
        answered_ns: 10 * at + 9,
    });
    let sent = ids.into_iter().chain(["unanswered"]).map(str::to_owned).collect();
    (accepted.collect(), sent, (0..).zip(ids).map(|(offset, id)| exhibit(id, offset)).collect())
}

fn exhibit(id: &str, offset: i64) -> Exhibit {
    Exhibit {
        id: id.to_owned(),
        key: REQUEST.to_owned(),
        sha256: format!("hash of {id}"),
        partition: PARTITION,
        offset,
    }
}

/// How many cases of each kind: lost, repeated, out of order, changed, misplaced, foreign.
fn judged(change: impl FnOnce(&mut Vec<Accepted>, &mut Vec<Exhibit>)) -> [usize; 6] {
    let (mut accepted, sent, mut exhibits) = flawless();
    change(&mut accepted, &mut exhibits);
    let judge = Judge::weigh(&accepted, &sent, &exhibits);
    let Judge { lost, repeated, out_of_order, changed, misplaced, foreign } = judge;
    [lost, repeated, out_of_order, changed, misplaced, foreign].map(|cases| cases.len())
}

#[test]
fn each_fault_is_found_and_nothing_else() {
    assert_eq!(judged(|_, _| ()), [0; 6]);
    assert_eq!(judged(|_, topic| topic.push(exhibit("unanswered", 3))), [0; 6]);
    assert_eq!(judged(|_, topic| drop(topic.remove(1))), [1, 0, 0, 0, 0, 0]);
    assert_eq!(judged(|_, topic| topic.push(exhibit("a", 3))), [0, 1, 0, 0, 0, 0]);
    assert_eq!(judged(|_, topic| topic[0].offset = 9), [0, 0, 1, 0, 0, 0]);
    assert_eq!(judged(|_, topic| topic[1].sha256.push('!')), [0, 0, 0, 1, 0, 0]);
    // What stands elsewhere than its request's other events is out of order, too; another key is a change, too.
    assert_eq!(judged(|_, topic| topic[2].partition += 1), [0, 0, 1, 0, 1, 0]);
    assert_eq!(judged(|_, topic| topic[1].key = ELSEWHERE.to_owned()), [0, 0, 0, 1, 1, 0]);
    assert_eq!(judged(|_, topic| topic.push(exhibit("nobody's", 3))), [0, 0, 0, 0, 0, 1]);
}

/// Events of one request that were under way together owe no order.
#[test]
fn order_is_owed_only_after_an_answer() {
    let swap = |_: &mut Vec<Accepted>, topic: &mut Vec<Exhibit>| {
        (topic[0].offset, topic[1].offset) = (topic[1].offset, topic[0].offset);
    };
    assert_eq!(judged(swap), [0, 0, 1, 0, 0, 0]);
    let together = judged(|accepted, topic| {
        accepted[1].sent_ns = accepted[0].sent_ns;
        swap(accepted, topic);
    });
    assert_eq!(together, [0; 6]);
}

//! What is known of the pods that keep the node's role, and what is not.

use crate::{attestation::PodUid, config::Account};
use std::collections::{BTreeMap, BTreeSet};

/// Most pods of one ServiceAccount on a node: a DaemonSet has one there, two in an update.
pub(crate) const PODS_MAX: usize = 64;

/// The pods of this node by their ServiceAccounts; of one that is not here nothing is known.
pub(crate) type Lists = BTreeMap<Account, BTreeSet<PodUid>>;

/// What is known of the pods that keep the node's role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    lists: Lists,
    /// The ServiceAccounts of which nothing is known, and why.
    unknown: BTreeMap<Account, String>,
    /// Whether the Kubernetes API has told anything yet.
    told: bool,
}

impl Known {
    /// At the start: what an earlier agent has left on disk, as far as it is still asked for.
    pub(crate) fn recalled(accounts: &BTreeSet<Account>, mut left: Lists) -> Self {
        left.retain(|account, _| accounts.contains(account));
        let unknown = accounts.iter().filter(|account| !left.contains_key(*account));
        let unknown = unknown.map(|account| (account.clone(), "the Kubernetes API was not asked yet".to_owned()));
        Self { unknown: unknown.collect(), lists: left, told: false }
    }

    /// The Kubernetes API has told all pods of a ServiceAccount. Returns whether this is news.
    pub(super) fn set(&mut self, account: &Account, mut pods: BTreeSet<PodUid>) -> bool {
        while pods.len() > PODS_MAX {
            pods.pop_last();
        }
        let was_unknown = self.unknown.remove(account).is_some();
        let is_news = self.lists.get(account) != Some(&pods);
        self.lists.insert(account.clone(), pods);
        was_unknown | is_news | !std::mem::replace(&mut self.told, true)
    }

    /// The Kubernetes API does not tell. Returns whether this is news: of a ServiceAccount that is known it is none.
    pub(super) fn fail(&mut self, account: &Account, why: &str) -> bool {
        match self.unknown.get_mut(account) {
            Some(known) if known != why => {
                why.clone_into(known);
                true
            }
            _ => false,
        }
    }

    /// As [`Self::fail`], of all ServiceAccounts.
    pub(super) fn fail_all(&mut self, why: &str) -> bool {
        let mut news = false;
        for known in self.unknown.values_mut().filter(|known| *known != why) {
            why.clone_into(known);
            news = true;
        }
        news
    }

    /// All pods that keep the node's role.
    pub(crate) fn pods(&self) -> BTreeSet<PodUid> {
        self.lists.values().flatten().copied().collect()
    }

    /// The pods by their ServiceAccounts, if the Kubernetes API has told any of them since the start.
    pub(crate) fn told(&self) -> Option<&Lists> {
        self.told.then_some(&self.lists)
    }

    /// Whether there is no other pod.
    pub(crate) fn is_complete(&self) -> bool {
        self.unknown.is_empty()
    }

    /// What is not known, in words.
    pub(crate) fn problem(&self) -> Option<String> {
        let (_, why) = self.unknown.first_key_value()?;
        let accounts: Vec<String> = self.unknown.keys().map(ToString::to_string).collect();
        Some(format!(
            "which pods of this node run as {} is not known, so they are like all others: {why}",
            accounts.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(last: usize) -> PodUid {
        PodUid::parse(&format!("11111111-2222-4333-8444-{last:012x}")).unwrap()
    }

    fn accounts() -> (Account, Account, BTreeSet<Account>) {
        let [a, b] = ["kube-system/aws-node", "kube-system/ebs"].map(|text| Account::parse(text).unwrap());
        (a.clone(), b.clone(), BTreeSet::from([a, b]))
    }

    #[test]
    fn what_is_on_disk_counts_until_the_api_tells_and_only_for_who_is_asked_for() {
        let (a, b, both) = accounts();
        let other = Account::parse("kube-system/another").unwrap();
        let left = Lists::from([(a.clone(), BTreeSet::from([uid(1)])), (other, BTreeSet::from([uid(9)]))]);
        let mut known = Known::recalled(&both, left);
        assert_eq!(known.pods(), BTreeSet::from([uid(1)]));
        assert_eq!((known.is_complete(), known.told()), (false, None));
        let problem = known.problem().unwrap();
        assert!(problem.contains("kube-system/ebs") && !problem.contains("aws-node"), "{problem}");

        assert!(known.fail(&b, "forbidden") && !known.fail(&b, "forbidden") && !known.fail(&a, "forbidden"));
        assert!(known.problem().unwrap().ends_with(": forbidden"));
        assert!(known.set(&b, BTreeSet::new()));
        assert!(known.is_complete() && known.problem().is_none());
        assert!(known.set(&a, BTreeSet::from([uid(2)])) && !known.set(&a, BTreeSet::from([uid(2)])));
        assert_eq!(known.pods(), BTreeSet::from([uid(2)]));
        assert!(!known.fail(&a, "gone") && known.is_complete(), "the last that was told goes on");
    }

    #[test]
    fn that_the_api_confirms_what_is_on_disk_is_news_once() {
        let (a, _, _) = accounts();
        let left = Lists::from([(a.clone(), BTreeSet::from([uid(1)]))]);
        let mut known = Known::recalled(&BTreeSet::from([a.clone()]), left.clone());
        assert!(known.set(&a, BTreeSet::from([uid(1)])) && !known.set(&a, BTreeSet::from([uid(1)])));
        assert_eq!(known.told(), Some(&left));
    }

    #[test]
    fn lists_are_bounded() {
        let (a, _, both) = accounts();
        let mut known = Known::recalled(&both, Lists::new());
        known.set(&a, (0..PODS_MAX + 9).map(uid).collect());
        assert_eq!(known.pods().len(), PODS_MAX);
    }
}

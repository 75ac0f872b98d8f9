//! The current lists of exempt pods, and the ServiceAccounts without one.

use crate::{attestation::PodUid, config::Account};
use std::collections::{BTreeMap, BTreeSet};

/// Most pods of one ServiceAccount on a node: a DaemonSet has one there, two in an update.
pub(crate) const PODS_MAX: usize = 64;

/// The pods of this node by ServiceAccount. The pods of a missing ServiceAccount are unknown.
pub(crate) type Lists = BTreeMap<Account, BTreeSet<PodUid>>;

/// The current lists of exempt pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    lists: Lists,
    /// The ServiceAccounts without a list, with the reasons.
    unknown: BTreeMap<Account, String>,
    /// True once the Kubernetes API has returned a list.
    from_api: bool,
}

impl Known {
    /// Creates the lists of an agent that starts: those that an earlier agent has left on disk for the ServiceAccounts
    /// of `--exempt`.
    pub(crate) fn recalled(accounts: &BTreeSet<Account>, mut left: Lists) -> Self {
        left.retain(|account, _| accounts.contains(account));
        let unknown = accounts.iter().filter(|account| !left.contains_key(*account));
        let unknown = unknown.map(|account| (account.clone(), "the Kubernetes API was not asked yet".to_owned()));
        Self { unknown: unknown.collect(), lists: left, from_api: false }
    }

    /// Stores the complete list of a ServiceAccount from the Kubernetes API. Returns whether anything has changed.
    pub(super) fn set(&mut self, account: &Account, mut pods: BTreeSet<PodUid>) -> bool {
        while pods.len() > PODS_MAX {
            pods.pop_last();
        }
        let was_unknown = self.unknown.remove(account).is_some();
        let is_new = self.lists.get(account) != Some(&pods);
        self.lists.insert(account.clone(), pods);
        was_unknown | is_new | !std::mem::replace(&mut self.from_api, true)
    }

    /// Stores why the Kubernetes API returns no list. Returns whether anything has changed; a ServiceAccount that has a
    /// list keeps it.
    pub(super) fn fail(&mut self, account: &Account, why: &str) -> bool {
        match self.unknown.get_mut(account) {
            Some(known) if known != why => {
                why.clone_into(known);
                true
            }
            _ => false,
        }
    }

    /// Does as [`Self::fail`] for all ServiceAccounts.
    pub(super) fn fail_all(&mut self, why: &str) -> bool {
        let mut changed = false;
        for known in self.unknown.values_mut().filter(|known| *known != why) {
            why.clone_into(known);
            changed = true;
        }
        changed
    }

    /// Returns all listed pods.
    pub(crate) fn pods(&self) -> BTreeSet<PodUid> {
        self.lists.values().flatten().copied().collect()
    }

    /// Returns the lists if any of them came from the Kubernetes API since the start.
    pub(crate) fn lists_from_api(&self) -> Option<&Lists> {
        self.from_api.then_some(&self.lists)
    }

    /// Returns whether every ServiceAccount has a list.
    pub(crate) fn is_complete(&self) -> bool {
        self.unknown.is_empty()
    }

    /// Returns the problem, if a ServiceAccount has no list.
    pub(crate) fn problem(&self) -> Option<String> {
        let (_, why) = self.unknown.first_key_value()?;
        let accounts: Vec<String> = self.unknown.keys().map(ToString::to_string).collect();
        Some(format!("the pods of {} on this node are not known yet and not exempt: {why}", accounts.join(", ")))
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
    fn disk_counts_until_the_api_answers() {
        let (a, b, both) = accounts();
        let other = Account::parse("kube-system/another").unwrap();
        let left = Lists::from([(a.clone(), BTreeSet::from([uid(1)])), (other, BTreeSet::from([uid(9)]))]);
        let mut known = Known::recalled(&both, left);
        assert_eq!(known.pods(), BTreeSet::from([uid(1)]));
        assert_eq!((known.is_complete(), known.lists_from_api()), (false, None));
        let problem = known.problem().unwrap();
        assert!(problem.contains("kube-system/ebs") && !problem.contains("aws-node"), "{problem}");

        assert!(known.fail(&b, "forbidden") && !known.fail(&b, "forbidden") && !known.fail(&a, "forbidden"));
        assert!(known.problem().unwrap().ends_with(": forbidden"));
        assert!(known.set(&b, BTreeSet::new()));
        assert!(known.is_complete() && known.problem().is_none());
        assert!(known.set(&a, BTreeSet::from([uid(2)])) && !known.set(&a, BTreeSet::from([uid(2)])));
        assert_eq!(known.pods(), BTreeSet::from([uid(2)]));
        assert!(!known.fail(&a, "gone") && known.is_complete(), "the last list stays");
    }

    #[test]
    fn confirmation_by_the_api_is_a_change_once() {
        let (a, _, _) = accounts();
        let left = Lists::from([(a.clone(), BTreeSet::from([uid(1)]))]);
        let mut known = Known::recalled(&BTreeSet::from([a.clone()]), left.clone());
        assert!(known.set(&a, BTreeSet::from([uid(1)])) && !known.set(&a, BTreeSet::from([uid(1)])));
        assert_eq!(known.lists_from_api(), Some(&left));
    }

    #[test]
    fn lists_are_bounded() {
        let (a, _, both) = accounts();
        let mut known = Known::recalled(&both, Lists::new());
        known.set(&a, (0..PODS_MAX + 9).map(uid).collect());
        assert_eq!(known.pods().len(), PODS_MAX);
    }
}

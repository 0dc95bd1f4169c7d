//! Prefixes of paths, found by binary search: the longest first, then the ones that it lies in.

/// A set of prefixes, each of which ends in a slash or is empty, with a value each.
///
/// Sorted, with every prefix knowing the longest other one that it starts with. All prefixes of a path are then on one
/// chain: it starts at the last prefix that is not greater than the path, or at one of those that this one lies in.
#[derive(Debug)]
pub(super) struct PrefixTree<T> {
    nodes: Vec<Node<T>>,
}

#[derive(Debug)]
struct Node<T> {
    prefix: Box<str>,
    parent: Option<usize>,
    value: T,
}

impl<T> Default for PrefixTree<T> {
    fn default() -> Self {
        Self { nodes: Vec::new() }
    }
}

impl<T: Default> PrefixTree<T> {
    /// The value of `prefix`, which is added if it is new; to be followed by [`PrefixTree::link`].
    #[allow(
        clippy::indexing_slicing,
        reason = "the position was found or filled just before"
    )]
    pub(super) fn entry(&mut self, prefix: &str) -> &mut T {
        let found = self
            .nodes
            .binary_search_by(|node| (*node.prefix).cmp(prefix));
        let position = found.unwrap_or_else(|position| {
            let node = Node {
                prefix: prefix.into(),
                parent: None,
                value: T::default(),
            };
            self.nodes.insert(position, node);
            position
        });
        &mut self.nodes[position].value
    }

    /// The prefixes that `path`, with a slash after it, starts with; the longest first.
    pub(super) fn matching<'a>(
        &'a self,
        path: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a T)> + use<'a, T> {
        let after = self
            .nodes
            .partition_point(|node| node.prefix.bytes().le(path.bytes().chain([b'/'])));
        let last = after.checked_sub(1).and_then(|last| self.nodes.get(last));
        std::iter::successors(last, |node| self.nodes.get(node.parent?))
            .filter(move |node| covers(&node.prefix, path))
            .map(|node| (&*node.prefix, &node.value))
    }

    /// Tells every prefix which one it lies in.
    pub(super) fn link(&mut self) {
        let mut open: Vec<usize> = Vec::new();
        for position in 0..self.nodes.len() {
            let (before, rest) = self.nodes.split_at_mut(position);
            let Some(node) = rest.first_mut() else { return };
            let lies_in = |outer: &usize| {
                let outer = before.get(*outer);
                outer.is_some_and(|outer| node.prefix.starts_with(&*outer.prefix))
            };
            while open.pop_if(|outer| !lies_in(outer)).is_some() {}
            node.parent = open.last().copied();
            open.push(position);
        }
    }
}

/// `/admin/` covers `/admin` and `/admin/x`, never `/administrator`.
fn covers(prefix: &str, path: &str) -> bool {
    path.starts_with(prefix) || prefix.strip_suffix('/') == Some(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(prefixes: &[&str], path: &str) -> Vec<String> {
        let mut tree = PrefixTree::<()>::default();
        for prefix in prefixes {
            tree.entry(prefix);
        }
        tree.link();
        tree.matching(path)
            .map(|(prefix, ())| prefix.to_owned())
            .collect()
    }

    #[test]
    fn a_prefix_covers_itself_and_what_lies_below() {
        let prefixes = ["", "/a/", "/a-b/", "/a/b/", "/a/b/c/", "/ab/", "/b/"];
        assert_eq!(found(&prefixes, "/a/b/x"), ["/a/b/", "/a/", ""]);
        assert_eq!(found(&prefixes, "/a"), ["/a/", ""]);
        assert_eq!(found(&prefixes, "/a/"), ["/a/", ""]);
        assert_eq!(found(&prefixes, "/abc"), [""]);
        assert_eq!(found(&prefixes, "/z"), [""]);
        assert_eq!(found(&prefixes, "/a!"), [""]);
        assert_eq!(found(&["/b/"], "/a"), [""; 0]);
        assert_eq!(found(&[], "/a"), [""; 0]);
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_a_plain_search_finds(
            prefixes in prop::collection::btree_set("(/[ab!-]{1,2}){0,3}", 0..12),
            path in "(/[ab!-]{1,2}){1,4}/?",
        ) {
            let prefixes: Vec<_> = prefixes
                .iter()
                .map(|text| if text.is_empty() { String::new() } else { format!("{text}/") })
                .collect();
            let mut expected: Vec<_> = prefixes.iter().filter(|prefix| covers(prefix, &path)).cloned().collect();
            expected.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
            let prefixes: Vec<_> = prefixes.iter().map(String::as_str).collect();
            prop_assert_eq!(found(&prefixes, &path), expected);
        }
    }
}

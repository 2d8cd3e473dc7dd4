//! Depth of a graph for recursive algorithms, such as the grammar library's.

/// Returns the maximum depth of a depth-first walk of a graph that enters each node once. This is
/// the recursion depth of such a walk. `starts` are walked in order; `edges` lists the successors
/// of each node, in order. Returns as soon as the depth exceeds `most`.
///
/// This function itself keeps its path in a list, so no graph is too deep for it.
pub(super) fn walk_depth(
    num_nodes: usize,
    starts: impl IntoIterator<Item = usize>,
    edges: &[Vec<usize>],
    most: usize,
) -> usize {
    let mut is_entered = vec![false; num_nodes];
    let mut deepest = 0;
    // Each node on the path from a start to the current node, and how many of its edges were
    // followed.
    let mut path: Vec<(usize, usize)> = Vec::new();
    for start in starts {
        if std::mem::replace(&mut is_entered[start], true) {
            continue;
        }
        path.push((start, 0));
        while let Some((node, followed)) = path.last_mut() {
            let next = edges[*node].get(*followed).copied();
            *followed += 1;
            match next {
                Some(next) if !is_entered[next] => {
                    is_entered[next] = true;
                    path.push((next, 0));
                    deepest = deepest.max(path.len());
                    if deepest > most {
                        return deepest;
                    }
                }
                Some(_) => {}
                None => {
                    path.pop();
                }
            }
        }
        deepest = deepest.max(1);
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_trees_and_circles_have_the_depth_of_a_recursive_walk() {
        let chain: Vec<Vec<usize>> = (1..=5)
            .map(|n| if n < 5 { vec![n] } else { vec![] })
            .collect();
        assert_eq!(walk_depth(5, [0], &chain, 100), 5);
        assert_eq!(walk_depth(5, [0], &chain, 2), 3, "it stops above the bound");
        let star = vec![vec![1, 2, 3], vec![], vec![], vec![]];
        assert_eq!(walk_depth(4, [0], &star, 100), 2);
        let circle = vec![vec![1], vec![2], vec![0]];
        assert_eq!(walk_depth(3, [1], &circle, 100), 3);
        assert_eq!(walk_depth(0, [], &[], 100), 0);
        // The walk itself handles a chain of a million nodes.
        let long: Vec<Vec<usize>> = (1..=1_000_000).map(|n| vec![n % 1_000_000]).collect();
        assert_eq!(walk_depth(1_000_000, [0], &long, usize::MAX), 1_000_000);
    }
}

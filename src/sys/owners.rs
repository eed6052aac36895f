//! Who owns which buffer: the books of a pool, apart from its memory.

/// Owner of one buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    /// Nobody: in the list of free buffers.
    Pool,
    /// A guard in this process.
    Guard,
    /// The kernel, until it says otherwise.
    Kernel,
}

/// The books: one owner per buffer, and the free ones as a stack, so that the warmest goes out first.
#[derive(Debug)]
pub(super) struct Owners {
    owners: Box<[Owner]>,
    free: Vec<u16>,
}

impl Owners {
    /// Books for `count` buffers, all free.
    pub(super) fn new(count: u16) -> Self {
        let owners = vec![Owner::Pool; usize::from(count)].into_boxed_slice();
        Self { owners, free: (0..count).rev().collect() }
    }

    /// Takes a free buffer for a guard.
    #[inline]
    pub(super) fn take(&mut self) -> Option<u16> {
        let index = self.free.pop()?;
        self.owners[usize::from(index)] = Owner::Guard;
        Some(index)
    }

    /// Puts a guard's buffer back.
    #[inline]
    pub(super) fn put_back(&mut self, index: u16) {
        self.change(index, Owner::Guard, Owner::Pool);
        self.free.push(index);
    }

    /// Passes a guard's buffer to the kernel.
    #[inline]
    pub(super) fn lend(&mut self, index: u16) {
        self.change(index, Owner::Guard, Owner::Kernel);
    }

    /// Takes a buffer that the kernel gave up back for a guard.
    #[inline]
    pub(super) fn reclaim(&mut self, index: u16) {
        self.change(index, Owner::Kernel, Owner::Guard);
    }

    /// Free buffers.
    #[inline]
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    #[inline]
    fn change(&mut self, index: u16, from: Owner, to: Owner) {
        let owner = &mut self.owners[usize::from(index)];
        assert_eq!(*owner, from, "buffer {index} changes hands only from its owner");
        *owner = to;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Take,
        PutBack(usize),
        Lend(usize),
        Reclaim(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Take),
            any::<usize>().prop_map(Step::PutBack),
            any::<usize>().prop_map(Step::Lend),
            any::<usize>().prop_map(Step::Reclaim),
        ]
    }

    fn pick(set: &BTreeSet<u16>, choice: usize) -> Option<u16> {
        set.iter().nth(choice.checked_rem(set.len())?).copied()
    }

    proptest! {
        #[test]
        fn every_buffer_has_exactly_one_owner(
            count in 0u16..20, steps in proptest::collection::vec(step(), 0..200)
        ) {
            let mut owners = Owners::new(count);
            let (mut guards, mut kernel) = (BTreeSet::new(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Take => match owners.take() {
                        Some(index) => {
                            prop_assert!(index < count && !kernel.contains(&index));
                            prop_assert!(guards.insert(index), "handed out twice");
                        }
                        None => prop_assert_eq!(guards.len() + kernel.len(), usize::from(count)),
                    },
                    Step::PutBack(choice) => if let Some(index) = pick(&guards, choice) {
                        guards.remove(&index);
                        owners.put_back(index);
                    },
                    Step::Lend(choice) => if let Some(index) = pick(&guards, choice) {
                        guards.remove(&index);
                        kernel.insert(index);
                        owners.lend(index);
                    },
                    Step::Reclaim(choice) => if let Some(index) = pick(&kernel, choice) {
                        kernel.remove(&index);
                        guards.insert(index);
                        owners.reclaim(index);
                    },
                }
                prop_assert_eq!(owners.free() + guards.len() + kernel.len(), usize::from(count));
            }
        }
    }

    #[test]
    #[should_panic(expected = "changes hands only from its owner")]
    fn the_kernel_cannot_give_up_what_it_was_not_lent() {
        let mut owners = Owners::new(2);
        let index = owners.take().unwrap();
        owners.reclaim(index);
    }
}

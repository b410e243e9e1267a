"""What came out of a task group, for those who care about one error alone."""


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in *group* that is no group itself."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

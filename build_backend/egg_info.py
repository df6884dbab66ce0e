"""The setuptools command that writes the metadata: it marks the version of a slow installation."""

from setuptools.command import egg_info as setuptools_egg_info

from build_backend.compile import find_compiler, skip_requested

NO_COMPILER = "+no.compiler"


class egg_info(setuptools_egg_info.egg_info):
    """Ends the version of what is built without a compiler in ``+no.compiler``.

    Without -v, pip shows nothing of what a build prints or warns of, only the name of the wheel
    and, at its very end, this version; so does uv.
    """

    def finalize_options(self) -> None:
        # An sdist is the same wherever it is made.
        slow = find_compiler() is None and not skip_requested()
        if slow and "sdist" not in self.distribution.commands:
            self.tag_build = NO_COMPILER
        super().finalize_options()

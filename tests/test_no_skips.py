"""In CI a skipped test is a failed one."""

import pytest

pytest_plugins = ["pytester"]
ALONE = ("-p", "no:playwright", "-p", "no:cacheprovider")  # plugins that cannot run inside themselves


def test_a_skip_fails_unless_its_reason_starts_with_elsewhere(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.skip(reason="no Chromium")
        def test_one(): pass

        def test_two(): pytest.skip("elsewhere: no Mailman 2")

        def test_three(): pass

        @pytest.mark.xfail(strict=True)
        def test_four(): assert False
    """)

    plain = pytester.runpytest(*ALONE)
    strict = pytester.runpytest(*ALONE, "-p", "tests.no_skips")

    plain.assert_outcomes(passed=1, skipped=2, xfailed=1)
    strict.assert_outcomes(passed=1, skipped=1, failed=1, errors=1)  # what is expected to fail is unfinished too
    strict.stdout.fnmatch_lines(["*skipped, and CI allows no skip but those that start with 'elsewhere:': no Chromium"])


def test_a_module_that_skips_itself_fails_too(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest; pytest.importorskip('no_such_module')")

    pytester.runpytest(*ALONE).assert_outcomes(skipped=1)
    pytester.runpytest(*ALONE, "-p", "tests.no_skips").assert_outcomes(errors=1)

"""The application for a WSGI server: ``gunicorn --threads 8 wsgi:app``."""

import sys

from portal import create_app
from portal.errors import ConfigurationError
from portal.faults import fault_of, print_error

try:
    app = create_app()
except ConfigurationError as error:
    print_error(error)
    sys.exit(fault_of(error).exit_code)

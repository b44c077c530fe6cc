"""dramatiq-gevent, as a module: dramatiq whose threads are gevent's."""

from gevent import monkey

monkey.patch_all()

if __name__ == "__main__":
    from dramatiq.cli import main

    raise SystemExit(main())

"""Canaille, an OpenID provider of another make, with one user and one client, in memory. Argument: {}. Says {port, issuer}.

Its tokens of the password grant are JWTs, those of client credentials are opaque.
"""
import logging
import os
import sys
import threading

from werkzeug.serving import make_server

os.environ.setdefault("AUTHLIB_INSECURE_TRANSPORT", "1")  # loopback


def serve():
    server = make_server("127.0.0.1", 0, lambda environ, start: [], threaded=True)
    issuer = f"http://127.0.0.1:{server.server_port}"
    server.app = provider(f"127.0.0.1:{server.server_port}")
    threading.Thread(target=end_with_parent, daemon=True).start()
    print("ready", '{"port": %d, "issuer": "%s"}' % (server.server_port, issuer), flush=True)
    server.serve_forever()


def provider(name):
    from canaille import create_app
    from canaille.app import models
    from canaille.backends import Backend

    app = create_app(config={
        "SECRET_KEY": "worth nothing: loopback, in memory, for a test",
        "SERVER_NAME": name,
        "PREFERRED_URL_SCHEME": "http",
        "CANAILLE": {"DATABASE": "memory", "LOGGING": {"version": 1, "root": {"level": "ERROR"}}},
        "CANAILLE_OIDC": {},
    })
    logging.disable(logging.ERROR)
    with app.app_context():
        backend = Backend.instance
        user = models.User(user_name="alice", password="correct horse battery staple", formatted_name="Alice",
                           family_name="Liddell", emails=["alice@example.com"])
        backend.save(user)
        client = models.Client(
            client_id="peer", client_secret="peer-secret-worth-nothing", client_name="peer",
            redirect_uris=["https://client.example/callback"],
            grant_types=["password", "client_credentials"], scope=["openid", "profile", "email"],
            token_endpoint_auth_method="client_secret_basic",
        )
        backend.save(client)
        client.audience = [client]
        backend.save(client)
    return app


def end_with_parent():
    sys.stdin.buffer.read()
    os._exit(0)


serve()

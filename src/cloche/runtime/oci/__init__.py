"""cloche-oci: the OCI runtime that other engines call, with runc's command line."""

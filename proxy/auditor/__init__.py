"""What is done with an audit trail afterwards: verified, searched, summed up, exported."""

"""What does tdforge use of the machine that it runs on? Its cache, and libraries that are compiled for it."""

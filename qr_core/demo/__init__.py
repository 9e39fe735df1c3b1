"""Sample documents of the demo, written for it: a support desk's articles and questions to it. Data only."""

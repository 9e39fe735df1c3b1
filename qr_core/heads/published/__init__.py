"""Published head sets, one JSON file each, with their provenance. Data only: `qr_core.heads.sets` reads them."""

"""Small networks trained adversarially, with and without what is said to flatten their minima."""

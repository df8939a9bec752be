"""Is the corrected number as low as AutoAttack's, and for how much less?"""

"""Kernel SVMs on hidden states: does training change which reasoning features are linearly separable?"""

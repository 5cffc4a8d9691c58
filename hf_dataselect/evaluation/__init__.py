"""Stage 3: was the selection worth it?"""

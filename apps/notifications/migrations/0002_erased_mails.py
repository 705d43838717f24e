from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("notifications", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="mail",
            name="erased_once_over",
            field=models.BooleanField(db_default=False, default=False, verbose_name="erased once over"),
        ),
    ]
